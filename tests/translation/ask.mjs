// Asks a gateway with the SDKs for JavaScript and their helpers, and prints what they make of the answers as JSON.
// Arguments: the folder in which the SDKs are installed, the gateway's address, and which of the SDKs.
import { createRequire } from "node:module";

const [folder, url, which] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const messages = [{ role: "user", content: "Weather?" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const said = {};

if (which === "openai") {
  const client = new (require("openai").default)({ baseURL: `${url}/v1`, apiKey: "clients-key", maxRetries: 0 });
  const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
  const chat = { model: "m", messages, tools };
  for (const [name, answer] of [
    ["whole", await client.chat.completions.create(chat)],
    ["stream", await client.chat.completions.stream(chat).finalChatCompletion()],
  ]) {
    const { message, finish_reason } = answer.choices[0];
    const call = message.tool_calls[0].function;
    said[name] = [message.content, call.name, JSON.parse(call.arguments), finish_reason];
  }
  const flat = [{ type: "function", name: "get_weather", parameters, strict: false }];
  const asked = { model: "m", input: "Weather?", tools: flat, store: false };
  for (const [name, answer] of [
    ["response", await client.responses.create(asked)],
    ["response stream", await client.responses.stream(asked).finalResponse()],
  ]) {
    const call = answer.output.find((item) => item.type === "function_call");
    said[name] = [answer.output_text, call.name, JSON.parse(call.arguments), answer.status];
  }
} else {
  const client = new (require("@anthropic-ai/sdk").default)({ baseURL: url, apiKey: "clients-key", maxRetries: 0 });
  const tools = [{ name: "get_weather", input_schema: parameters }];
  const asked = { model: "m", max_tokens: 500, messages, tools };
  for (const [name, answer] of [
    ["whole", await client.messages.create(asked)],
    ["stream", await client.messages.stream(asked).finalMessage()],
  ]) {
    const text = answer.content.filter((block) => block.type === "text").map((block) => block.text).join("");
    const call = answer.content.find((block) => block.type === "tool_use");
    said[name] = [text, call.name, call.input, answer.stop_reason];
  }
}
console.log(JSON.stringify(said));
