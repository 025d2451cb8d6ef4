// What went wrong, as a sentence that says what to do.

export class Problem extends Error {
  constructor(text, { canRetry = false, retryAfterS = null, needsKey = false } = {}) {
    super(text);
    this.canRetry = canRetry;
    this.retryAfterS = retryAfterS;
    this.needsKey = needsKey;
  }
}

const MICROPHONE = {
  NotAllowedError:
    "The microphone is refused. Allow it for this page in the browser's address bar and press Use microphone. Typing works meanwhile.",
  SecurityError: "The browser forbids microphones on this page. Typing works.",
  NotFoundError: "There is no microphone on this device. Plug one in and press Use microphone; typing works meanwhile.",
  NotReadableError: "Another program holds the microphone. Close it and press Use microphone; typing works meanwhile.",
  OverconstrainedError: "That microphone is gone. Choose another one.",
  AbortError: "The microphone could not be started. Try again, or type.",
};

export function microphoneProblem(error) {
  return new Problem(MICROPHONE[error?.name] ?? `The microphone cannot be used (${error?.name ?? error}). Typing works.`);
}

export function insecure() {
  const host = location.host;
  return new Problem(
    `Browsers give microphones only to secure pages. Open https://${host} instead, if this gateway has a certificate, ` +
      "or use localhost on the machine itself. Typing works here.",
  );
}

export async function refusalOf(response) {
  let told = "";
  try {
    told = (await response.json()).error?.message ?? "";
  } catch {
    /* no JSON: the status says enough */
  }
  const retryAfterS = Number(response.headers.get("Retry-After")) || null;
  switch (response.status) {
    case 429:
      return new Problem(
        `All places are taken at the moment${retryAfterS ? `; try again in ${retryAfterS} s` : ""}. ${told}`,
        { retryAfterS },
      );
    case 401:
      return new Problem("This gateway wants a key.", { needsKey: true });
    case 403:
      return new Problem(`The gateway does not let this page in. ${told}`);
    case 404:
      return new Problem(told || "That session is over.");
    case 503:
      return new Problem(`The gateway is not ready: ${told || "it is starting or being replaced"}`, { canRetry: true });
    default:
      return new Problem(`The gateway refused the call (${response.status}). ${told}`, { canRetry: response.status >= 500 });
  }
}

export function unreachable() {
  return new Problem("The gateway cannot be reached. Check the network and that it is running.", { canRetry: true });
}

export function noMediaPath() {
  return new Problem(
    "The gateway answers, but sound finds no way: a firewall or VPN blocks UDP. Its operator can offer a TURN server.",
    { canRetry: true },
  );
}
