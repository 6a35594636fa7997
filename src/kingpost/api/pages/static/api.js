// The management API, asked with the key that the visitor gave. The key stays in this tab.

const STORED = "kingpost.key";
const byId = (id) => document.getElementById(id);

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The JSON answer of the platform. Throws Refused with its message, or TypeError without one. */
export async function ask(path, { method = "GET", body } = {}) {
  const response = await fetch(path, {
    method,
    headers: {
      Authorization: `Api-Key ${sessionStorage.getItem(STORED)}`,
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
    },
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Refused(response.status, answer.message ?? `The platform answered ${response.status}.`);
  }
  return answer;
}

/** Calls `begin` once there is a key, and again when the visitor gives another one. */
export function withKey(begin) {
  byId("forget").addEventListener("click", () => {
    sessionStorage.removeItem(STORED);
    location.reload();
  });
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(STORED, byId("key").value.trim());
    byId("key").value = "";
    show(true);
    begin();
  });
  const known = sessionStorage.getItem(STORED) !== null;
  show(known);
  if (known) begin();
}

/** The key was refused: say why and ask for another. */
export function askAgain(message) {
  sessionStorage.removeItem(STORED);
  byId("key-problem").textContent = message;
  show(false);
  byId("key").focus();
}

const MOODS = {
  ACTIVE: "good",
  SCALED_TO_ZERO: "idle",
  INACTIVE: "idle",
  BUILDING: "busy",
  DEPLOYING: "busy",
  LOADING_MODEL: "busy",
  UPDATING: "busy",
  WAKING_UP: "busy",
  DEACTIVATING: "busy",
};

/** A status in words, and the class that colours it. */
export function statusOf(deployment) {
  const words = deployment.status.toLowerCase().replaceAll("_", " ");
  return { words, mood: MOODS[deployment.status] ?? "bad" };
}

function show(known) {
  byId("key-form").hidden = known;
  byId("forget").hidden = !known;
}
