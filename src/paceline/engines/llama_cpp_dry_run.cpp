// Paceline's dry run of llama-server: says how many bytes a command line would take on each device, and allocates none.
//
//     llama-dry-run [--devices KIND:TOTAL:FREE,...] FLAGS OF llama-server
//
// The sizes are those of llama.cpp's own planner, so they can't drift from what the server does. With --devices, the
// machine's devices are passed over for made-up ones of the given bytes: a plan for a machine that is not this one.
// KIND is "cuda", "rocm", "vulkan" or "metal".
//
// Prints one JSON document:
//     {"build": 11434, "fit": {...} or null, "parts": [{"part": "target" or "drafter", "error": text or null,
//       "devices": [{"name", "total", "free", "weights", "context", "compute"}, ...]}, ...]}
// The last device of each part is the host. "fit" is there with --fit on: what llama.cpp's own fitting would change.
//
// It is built in place of llama.cpp's tools/fit-params/fit-params.cpp.
#include "../../ggml/src/ggml-backend-impl.h"
#include "../../src/llama-ext.h"
#include "arg.h"
#include "build-info.h"
#include "common.h"
#include "fit.h"
#include "ggml-cpu.h"
#include "llama.h"
#include "log.h"
#include "speculative.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

int llama_fit_params(int argc, char ** argv);

// Devices that don't exist: they answer what the planner asks, and take no memory.
namespace made_up {
namespace {

constexpr size_t ALIGNMENT = 128;      // of CUDA's buffers
constexpr size_t ROW_PADDING = 512;    // values; CUDA pads the last row of quantized tensors to whole ones
constexpr int64_t OFFLOAD_BATCH = 32;  // from so many tokens on, CUDA computes with weights that are on the host
constexpr uintptr_t BASE = 0x1000;     // any address but null, which means that nothing was allocated

struct device_context {
    std::string kind, name;
    size_t total, free;
    ggml_backend_buffer_type buffer_type;
    ggml_backend_device device;

    bool is_cuda() const { return kind == "cuda" || kind == "rocm"; }
};

std::vector<std::unique_ptr<device_context>> contexts;
std::vector<ggml_backend_dev_t> devices;

device_context & of(ggml_backend_dev_t dev) { return *static_cast<device_context *>(dev->context); }
device_context & of(ggml_backend_buffer_type_t buft) { return *static_cast<device_context *>(buft->context); }

// Flash attention over a cache that is not of F16 turns the whole of it into F16 for batches (fattn-common.cuh).
size_t f16_copies(const ggml_tensor * attention) {
    const ggml_tensor * k = attention->src[1];
    const ggml_tensor * v = attention->src[2];
    const bool is_one = v->view_src && (v->view_src == k || (v->view_src == k->view_src && v->view_offs == k->view_offs));
    size_t size = 0;
    for (const ggml_tensor * cache : {k, v}) {
        if (cache->type != GGML_TYPE_F16 && !(cache == v && is_one)) {
            size += ALIGNMENT + ggml_nelements(cache) * sizeof(ggml_fp16_t);
        }
    }
    return size;
}

size_t alloc_size(ggml_backend_buffer_type_t buft, const ggml_tensor * tensor) {
    size_t size = ggml_nbytes(tensor);
    if (!of(buft).is_cuda()) {
        return size;
    }
    if (tensor->op == GGML_OP_FLASH_ATTN_EXT) {
        size += f16_copies(tensor);
    }
    if (ggml_is_quantized(tensor->type) && tensor->ne[0] % ROW_PADDING != 0) {
        size += ggml_row_size(tensor->type, ROW_PADDING - tensor->ne[0] % ROW_PADDING);
    }
    return size;
}

ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t buft, size_t size) {
    ggml_backend_buffer_i buffer = {};
    buffer.get_base = [](ggml_backend_buffer_t) { return reinterpret_cast<void *>(BASE); };
    buffer.memset_tensor = [](ggml_backend_buffer_t, ggml_tensor *, uint8_t, size_t, size_t) {};
    buffer.set_tensor = [](ggml_backend_buffer_t, ggml_tensor *, const void *, size_t, size_t) {};
    buffer.get_tensor = [](ggml_backend_buffer_t, const ggml_tensor *, void * data, size_t, size_t n) { memset(data, 0, n); };
    buffer.clear = [](ggml_backend_buffer_t, uint8_t) {};
    return ggml_backend_buffer_init(buft, buffer, nullptr, size);
}

ggml_backend_t init_backend(ggml_backend_dev_t dev, const char *) {
    static ggml_guid guid = {0x70, 0x61, 0x63, 0x65, 0x6c, 0x69, 0x6e, 0x65, 0, 0, 0, 0, 0, 0, 0, 1};
    ggml_backend_i backend = {};
    backend.get_name = [](ggml_backend_t self) { return of(self->device).name.c_str(); };
    backend.free = [](ggml_backend_t self) { delete self; };
    backend.synchronize = [](ggml_backend_t) {};
    backend.graph_compute = [](ggml_backend_t, ggml_cgraph *) { return GGML_STATUS_FAILED; };
    backend.event_record = [](ggml_backend_t, ggml_backend_event_t) {};
    backend.event_wait = [](ggml_backend_t, ggml_backend_event_t) {};
    return new ggml_backend{&guid, backend, dev, nullptr};
}

void get_props(ggml_backend_dev_t dev, ggml_backend_dev_props * props) {
    const device_context & context = of(dev);
    *props = {};
    props->name = context.name.c_str();
    props->description = context.name.c_str();
    props->memory_free = context.free;
    props->memory_total = context.total;
    props->type = GGML_BACKEND_DEVICE_TYPE_GPU;
    props->caps.async = true;
    props->caps.host_buffer = context.is_cuda();
    props->caps.events = true;
    props->caps.mmap_support = true;
}

int64_t batch_size(const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_GET_ROWS:   return 0;
        case GGML_OP_MUL_MAT:    return op->ne[1];
        case GGML_OP_MUL_MAT_ID:
        case GGML_OP_ROPE:       return op->ne[2];
        default:                 return ggml_nrows(op);
    }
}

ggml_backend_device_i device_interface() {
    ggml_backend_device_i device = {};
    device.get_name = [](ggml_backend_dev_t dev) { return of(dev).name.c_str(); };
    device.get_description = device.get_name;
    device.get_memory = [](ggml_backend_dev_t dev, size_t * free, size_t * total) {
        *free = of(dev).free;
        *total = of(dev).total;
    };
    device.get_type = [](ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; };
    device.get_props = get_props;
    device.init_backend = init_backend;
    device.get_buffer_type = [](ggml_backend_dev_t dev) { return &of(dev).buffer_type; };
    device.get_host_buffer_type = [](ggml_backend_dev_t) { return ggml_backend_cpu_buffer_type(); };
    device.supports_op = [](ggml_backend_dev_t, const ggml_tensor *) { return true; };
    device.supports_buft = [](ggml_backend_dev_t dev, ggml_backend_buffer_type_t buft) { return buft == &of(dev).buffer_type; };
    device.offload_op = [](ggml_backend_dev_t, const ggml_tensor * op) { return batch_size(op) >= OFFLOAD_BATCH; };
    device.event_new = [](ggml_backend_dev_t dev) { return new ggml_backend_event{dev, nullptr}; };
    device.event_free = [](ggml_backend_dev_t, ggml_backend_event_t event) { delete event; };
    device.event_synchronize = [](ggml_backend_dev_t, ggml_backend_event_t) {};
    return device;
}

ggml_backend_reg_t registry() {
    static ggml_backend_reg reg = {
        GGML_BACKEND_API_VERSION,
        {
            [](ggml_backend_reg_t) { return "made-up"; },
            [](ggml_backend_reg_t) { return devices.size(); },
            [](ggml_backend_reg_t, size_t index) { return devices.at(index); },
            nullptr,
        },
        nullptr,
    };
    return &reg;
}

// "cuda:25769803776:25000000000,..."; false where it can't be read.
bool add(const std::string & words) {
    std::istringstream stream(words);
    std::string word;
    while (std::getline(stream, word, ',')) {
        char kind[16];
        unsigned long long total, free;
        if (sscanf(word.c_str(), "%15[a-z]:%llu:%llu", kind, &total, &free) != 3) {
            return false;
        }
        auto context = std::make_unique<device_context>();
        context->kind = kind;
        context->name = kind;
        std::transform(context->name.begin(), context->name.end(), context->name.begin(), ::toupper);
        context->name += std::to_string(contexts.size());
        context->total = total;
        context->free = free;
        context->device = {device_interface(), registry(), context.get()};
        ggml_backend_buffer_type_i buffer_type = {};
        buffer_type.get_name = [](ggml_backend_buffer_type_t buft) { return of(buft).name.c_str(); };
        buffer_type.alloc_buffer = alloc_buffer;
        buffer_type.get_alignment = [](ggml_backend_buffer_type_t) { return ALIGNMENT; };
        buffer_type.get_alloc_size = alloc_size;
        context->buffer_type = {buffer_type, &context->device, context.get()};
        devices.push_back(&context->device);
        contexts.push_back(std::move(context));
    }
    ggml_backend_register(registry());
    return !devices.empty();
}

}  // namespace
}  // namespace made_up

static std::string json_text(const std::string & text) {
    std::string out = "\"";
    for (const unsigned char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
        }
        out += c < ' ' ? ' ' : static_cast<char>(c);
    }
    return out + '"';
}

static std::string last_error;  // what llama.cpp logged last, which says more than its exceptions

static void remember_errors(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) {
        last_error += text;
    }
}

using model_ptr = std::unique_ptr<llama_model, decltype(&llama_model_free)>;
using context_ptr = std::unique_ptr<llama_context, decltype(&llama_free)>;

// A model's tensors with their places, and none of their bytes.
static model_ptr loaded(const std::string & path, llama_model_params params) {
    params.no_alloc = true;
    params.load_mode = LLAMA_LOAD_MODE_NONE;
    return {llama_model_load_from_file(path.c_str(), params), llama_model_free};
}

struct sizes {
    size_t total = 0, free = 0, weights = 0, context = 0, compute = 0;
};

// What a context takes on each of its model's devices, the host's last. What is on none of them is on the host: the
// weights that the CPU backend keeps in an order of its own are in buffers that don't count as the host's.
static std::string devices_of(const llama_context * context, bool shares_weights) {
    const llama_model * model = llama_get_model(context);
    std::vector<ggml_backend_dev_t> devices;
    for (int i = 0; i < llama_model_n_devices(model); i++) {
        devices.push_back(llama_model_get_device(model, i));
    }
    std::vector<sizes> found(devices.size() + 1);
    for (const auto & [buffer_type, memory] : llama_get_memory_breakdown(context)) {
        const auto * device = ggml_backend_buft_is_host(buffer_type) ? nullptr : ggml_backend_buft_get_device(buffer_type);
        sizes & place = found[std::find(devices.begin(), devices.end(), device) - devices.begin()];
        place.weights += shares_weights ? 0 : memory.model;
        place.context += memory.context;
        place.compute += memory.compute;
    }
    devices.push_back(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    std::ostringstream out;
    for (size_t i = 0; i < devices.size(); i++) {
        ggml_backend_dev_memory(devices[i], &found[i].free, &found[i].total);
        out << (i ? "," : "") << "{\"name\":" << json_text(i + 1 < devices.size() ? ggml_backend_dev_name(devices[i]) : "host")
            << ",\"total\":" << found[i].total << ",\"free\":" << found[i].free << ",\"weights\":" << found[i].weights
            << ",\"context\":" << found[i].context << ",\"compute\":" << found[i].compute << "}";
    }
    return out.str();
}

static std::string part(const char * name, const llama_context * context, bool shares_weights) {
    return std::string("{\"part\":\"") + name + "\",\"error\":" + (context ? "null" : json_text(last_error)) +
           ",\"devices\":[" + (context ? devices_of(context, shares_weights) : "") + "]}";
}

static std::string fitted(common_params & params, llama_model_params & model_params, llama_context_params & context_params,
                          const common_fit_extra_model * extra) {
    const auto status = common_fit_params(params.model.path.c_str(), &model_params, &context_params, params.tensor_split,
                                          params.tensor_buft_overrides.data(), params.fit_params_target.data(),
                                          params.fit_params_min_ctx, extra, GGML_LOG_LEVEL_ERROR);
    std::ostringstream out;
    out << "{\"succeeded\":" << (status == COMMON_PARAMS_FIT_STATUS_SUCCESS ? "true" : "false")
        << ",\"context\":" << context_params.n_ctx << ",\"gpu_layers\":" << model_params.n_gpu_layers << ",\"overrides\":[";
    const auto * overrides = model_params.tensor_buft_overrides;
    for (size_t i = 0; overrides && overrides[i].pattern; i++) {
        out << (i ? "," : "") << json_text(std::string(overrides[i].pattern) + "=" + ggml_backend_buft_name(overrides[i].buft));
    }
    out << "]}";
    return out.str();
}

int llama_fit_params(int argc, char ** argv) {
    std::vector<char *> words(argv, argv + argc);
    if (words.size() > 2 && std::string(words[1]) == "--devices") {
        if (!made_up::add(words[2])) {
            fprintf(stderr, "--devices: not KIND:TOTAL:FREE,...: %s\n", words[2]);
            return 1;
        }
        words.erase(words.begin() + 1, words.begin() + 3);
    }
    common_params params;
    common_init();
    llama_log_set(remember_errors, nullptr);
    if (!common_params_parse(static_cast<int>(words.size()), words.data(), params, LLAMA_EXAMPLE_SERVER)) {
        return 1;
    }
    llama_backend_init();
    if (!made_up::devices.empty()) {
        params.devices = made_up::devices;
        params.devices.push_back(nullptr);
    }

    // As the server does it before it loads (server.cpp, server-context.cpp).
    if (params.n_parallel < 0) {
        params.n_parallel = 4;
        params.kv_unified = true;
    }
    const int longest_draft = common_speculative_n_max(&params.speculative);
    const auto limits = common_speculative_get_output_limits(params.n_batch, params.n_parallel, longest_draft);
    params.n_outputs_max = limits.total;
    params.n_outputs_max_per_seq = limits.per_seq;

    auto model_params = common_model_params_to_llama(params);
    auto context_params = common_context_params_to_llama(params);

    // The drafter's, as common_fit_params is given them (common.cpp).
    const auto & types = params.speculative.types;
    const bool is_mtp = std::find(types.begin(), types.end(), COMMON_SPECULATIVE_TYPE_DRAFT_MTP) != types.end();
    const bool has_file = params.speculative.has_dft();
    common_params drafter = common_base_params_to_speculative(params);
    auto drafter_model_params = common_model_params_to_llama(drafter);
    auto drafter_context_params = common_context_params_to_llama(drafter);
    drafter_context_params.n_rs_seq = 0;
    if (is_mtp) {
        drafter_context_params.ctx_type = LLAMA_CONTEXT_TYPE_MTP;
    }
    const std::string drafter_path = has_file ? drafter.model.path : params.model.path;
    const bool has_drafter = has_file || is_mtp;
    const common_fit_extra_model extra = {drafter_path.c_str(), &drafter_model_params, &drafter_context_params, !has_file};

    std::string fit = "null";
    if (params.fit_params) {
        fit = fitted(params, model_params, context_params, has_drafter ? &extra : nullptr);
    }
    const model_ptr target = loaded(params.model.path, model_params);
    const context_ptr context(target ? llama_init_from_model(target.get(), context_params) : nullptr, llama_free);
    std::string parts = part("target", context.get(), false);
    if (has_drafter && context) {
        last_error.clear();
        const model_ptr own = has_file ? loaded(drafter.model.path, drafter_model_params) : model_ptr(nullptr, llama_model_free);
        llama_model * model = has_file ? own.get() : target.get();
        drafter_context_params.n_ctx = llama_n_ctx(context.get());  // as many tokens as the target's
        drafter_context_params.ctx_other = context.get();
        const context_ptr second(model ? llama_init_from_model(model, drafter_context_params) : nullptr, llama_free);
        parts += "," + part("drafter", second.get(), !has_file);
    }
    printf("{\"build\":%d,\"fit\":%s,\"parts\":[%s]}\n", llama_build_number(), fit.c_str(), parts.c_str());
    fflush(stdout);
    return 0;
}
