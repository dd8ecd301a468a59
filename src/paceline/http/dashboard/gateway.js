// Asks the gateway.

export class NeedsKey extends Error {}

const STORED = "paceline key";
let key = sessionStorage.getItem(STORED) || "";

export function useKey(given) {
  key = given;
  sessionStorage.setItem(STORED, key);
}

/** The answer to a request; throws what the gateway says of an error. */
export async function ask(path, body, headers = {}) {
  if (key) headers = { ...headers, authorization: `Bearer ${key}` };
  const options = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  if (answer.status === 401) throw new NeedsKey(key ? "This is no key of the gateway." : "This gateway wants an API key.");
  const message = await said(answer);
  throw answer.status === 403 ? new NeedsKey(message) : new Error(message);
}

export async function asked(path, body) {
  return (await ask(path, body)).json();
}

async function said(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `${answer.url} answers ${answer.status}`;
  }
}
