// Asks the draft control of the patched llama.cpp what it chooses: commands on standard input, one answer a line.

#include "speculative-control.h"

#include <cstdio>
#include <deque>
#include <iostream>
#include <string>

static std::vector<float> numbers() {
    size_t n;
    std::cin >> n;
    std::vector<float> res(n);
    for (auto & one : res) {
        std::cin >> one;
    }
    return res;
}

int main() {
    std::vector<common_draft_prior> priors;
    std::vector<int32_t>            n_max;

    common_draft_rule         control;
    common_draft_rule::choice chosen;

    std::deque<common_draft_control> requests;

    double cost_more = 0.0; // of every drafter

    std::string command;
    while (std::cin >> command) {
        if (command == "drafter") {
            common_draft_prior prior;
            size_t n_lists;
            n_max.emplace_back();
            std::cin >> prior.is_lookup >> prior.weight >> n_max.back();
            prior.costs      = numbers();
            prior.acceptance = numbers();
            std::cin >> n_lists;
            while (n_lists-- > 0) {
                int32_t n_match;
                std::cin >> n_match;
                prior.by_match[n_match] = numbers();
            }
            priors.push_back(prior);
        } else if (command == "begin") {
            control.init(priors, n_max);
        } else if (command == "behind") {
            std::cin >> cost_more;
        } else if (command == "choose") {
            std::vector<common_draft_rule::offer> offers(priors.size());
            for (auto & offer : offers) {
                std::cin >> offer.n_max >> offer.n_match;
                offer.cost_more = cost_more;
            }
            chosen = control.choose(offers);
            std::printf("%d %d %d %.9g\n", chosen.drafter, chosen.n_draft, chosen.n_limit, control.rate());
        } else if (command == "request") {
            requests.emplace_back().init(priors, n_max, 0);
            priors.clear();
            n_max.clear();
        } else if (command == "together") {
            int32_t n_others;
            std::cin >> n_others;
            std::vector<common_draft_control *> together;
            for (auto & request : requests) {
                int32_t longest;
                std::cin >> longest;
                request.look(longest, { cost_more });
                together.push_back(&request);
            }
            common_draft_control::choose_together(together, n_others);
            for (const auto * request : together) {
                std::printf("%d\n", request->chosen().n_draft);
            }
        } else if (command == "decoded") {
            int32_t n;
            std::cin >> n;
            for (int32_t i = 0; i < n; ++i) {
                control.decoded(1);
                for (auto & request : requests) {
                    request.on_step({ 0 }, 0);
                }
            }
        } else if (command == "verified" || command == "watched") {
            int32_t drafter, n_draft, n_accepted, n_match;
            std::cin >> drafter >> n_draft >> n_accepted >> n_match;
            if (command == "verified") {
                control.verified(drafter, n_draft, n_accepted, n_match);
            } else {
                control.watched(drafter, n_draft, n_accepted, n_match);
            }
        } else if (command == "worth") {
            double p;
            int32_t n;
            std::cin >> p >> n;
            std::printf("%d\n", control.is_worth(chosen, p, n));
        } else if (command == "lookup") {
            common_draft_lookup lookup;
            size_t n_tokens;
            int32_t n_longest;
            std::cin >> n_longest >> n_tokens;
            while (n_tokens-- > 0) {
                int32_t token;
                std::cin >> token;
                lookup.append(token);
            }
            std::vector<int32_t> draft;
            std::printf("%d", lookup.find(n_longest, draft));
            for (const auto token : draft) {
                std::printf(" %d", token);
            }
            std::printf("\n");
        }
    }
}
