// The key of a gateway that asks for one: kept for this tab alone, shown with every request.

const KEPT = "voicemesh-key";

export function setKey(key) {
  sessionStorage.setItem(KEPT, key);
}

export function ask(url, options = {}) {
  const headers = new Headers(options.headers);
  const key = sessionStorage.getItem(KEPT);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  return fetch(url, { ...options, headers });
}
