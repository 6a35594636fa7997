// The page of one deployment: its state, its log as it grows, and its promotion.

import { Refused, ask, askAgain, statusOf, withKey } from "./api.js";

const POLL_MS = 1500;
const SLOW_POLL_MS = 10_000;
const MAX_LINES = 5000;
const WEEK_MS = 7 * 24 * 3600 * 1000;
const SETTLED = new Set(["INACTIVE", "BUILD_FAILED", "BUILD_STOPPED", "DEPLOY_FAILED", "FAILED"]);
const CLOCK = new Intl.DateTimeFormat([], {
  hourCycle: "h23",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
});
const COLOURS = /\u001b\[[0-9;]*[A-Za-z]/g; // terminal colours, of no use here

const byId = (id) => document.getElementById(id);
const { model, deployment } = byId("deployment").dataset;
const path = `/v1/models/${model}/deployments/${deployment}`;
const log = byId("log");

let running = false;
let last = null; // the newest line's time in nanoseconds, as a BigInt
let seen = new Set(); // lines of the newest millisecond, which the next question gets again

withKey(() => {
  byId("log-card").hidden = false;
  if (!running) {
    running = true;
    describeModel();
    poll();
  }
});

byId("promote").addEventListener("click", () => byId("confirm").showModal());
byId("confirm").addEventListener("close", () => {
  if (byId("confirm").returnValue === "yes") promote();
});
byId("filter").addEventListener("input", () => {
  for (const line of log.children) line.hidden = !matches(line);
  follow();
});
byId("follow").addEventListener("change", follow);
log.addEventListener("scroll", () => {
  byId("follow").checked = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
});

async function describeModel() {
  try {
    const { name } = await ask(`/v1/models/${model}`);
    byId("model").textContent = `${name} · ${model}`;
    document.title = `${name} · Kingpost`;
  } catch {
    // the poll below says what is wrong
  }
}

async function poll() {
  let wait = POLL_MS;
  try {
    const state = await ask(path);
    describe(state);
    await readLog(state);
    if (document.hidden || SETTLED.has(state.status)) wait = SLOW_POLL_MS;
  } catch (error) {
    if (error instanceof Refused && [401, 403].includes(error.status)) {
      running = false;
      byId("log-card").hidden = true;
      askAgain(error.message);
      return;
    }
    wait = SLOW_POLL_MS;
    setStatus(
      error instanceof Refused ? "not available" : "no answer",
      "bad",
      error instanceof Refused ? error.message : "The platform does not answer. Trying again.",
    );
  }
  setTimeout(poll, wait);
}

function describe(state) {
  const { words, mood } = statusOf(state);
  setStatus(words, mood, state.status_reason ?? "");
  byId("title").textContent = state.name;
  byId("replicas").textContent =
    `${state.active_replica_count} ready, at most ${state.autoscaling_settings.max_replica}`;
  byId("environment").textContent =
    state.environment ?? (state.is_development ? "development" : "none");
  byId("instance").textContent = state.instance_type_name;
  byId("pushed").textContent = new Date(state.created_at).toLocaleString();
  byId("promote").disabled = state.is_production;
  byId("promote").textContent = state.is_production
    ? "Serves production"
    : "Promote to production";
}

function setStatus(words, mood, reason) {
  const status = byId("status");
  if (status.textContent !== words) status.textContent = words;
  status.className = `status ${mood}`;
  const note = byId("reason");
  if (note.textContent !== reason) note.textContent = reason;
  note.hidden = reason === "";
}

async function readLog(state) {
  const query = new URLSearchParams();
  if (last === null) {
    const since = Math.max(Date.parse(state.created_at) - 1000, Date.now() - WEEK_MS + 60_000);
    query.set("start_epoch_millis", String(Math.floor(since)));
    query.set("limit", "1000");
  } else {
    query.set("start_epoch_millis", String(last / 1_000_000n));
    query.set("direction", "asc");
    query.set("limit", "1000");
  }
  const first = last === null;
  const { logs } = await ask(`${path}/logs?${query}`);
  const lines = first ? logs.reverse() : logs;
  const fresh = lines.filter((line) => !seen.has(nameOf(line)));
  if (fresh.length > 0) {
    last = BigInt(fresh.at(-1).timestamp);
    const newest = last / 1_000_000n;
    seen = new Set(lines.filter((l) => BigInt(l.timestamp) / 1_000_000n === newest).map(nameOf));
    log.append(...fresh.map(render));
    while (log.children.length > MAX_LINES) log.firstElementChild.remove();
  } else if (logs.length === 1000) {
    last += 1_000_000n; // more lines in one millisecond than one answer holds
  }
  log.hidden = log.children.length === 0;
  byId("log-note").hidden = !log.hidden;
  if (fresh.length > 0) follow();
}

function nameOf(line) {
  return `${line.timestamp} ${line.replica} ${line.message}`;
}

function render(line) {
  const made = document.createElement("li");
  if (line.level) made.className = line.level;
  const at = new Date(Number(BigInt(line.timestamp) / 1_000_000n));
  const time = document.createElement("time");
  time.dateTime = at.toISOString();
  time.title = at.toLocaleString();
  time.textContent = CLOCK.format(at);
  const from = document.createElement("span");
  from.className = "from";
  from.textContent = line.replica ?? "platform";
  const text = document.createElement("span");
  text.className = "text";
  text.textContent = line.message.replaceAll(COLOURS, "");
  made.append(time, from, text);
  made.hidden = !matches(made);
  return made;
}

function matches(line) {
  const wanted = byId("filter").value.toLowerCase();
  return wanted === "" || line.textContent.toLowerCase().includes(wanted);
}

function follow() {
  if (byId("follow").checked) log.scrollTop = log.scrollHeight;
}

async function promote() {
  const outcome = byId("outcome");
  byId("promote").disabled = true;
  outcome.className = "";
  outcome.textContent = "Promoting …";
  try {
    const promoted = await ask(`${path}/promote`, { method: "POST", body: {} });
    outcome.textContent = "Production moves here once this deployment is ready.";
    if (promoted.id !== deployment) {
      const link = document.createElement("a");
      link.href = `/models/${model}/logs/${promoted.id}`;
      link.textContent = promoted.name;
      outcome.replaceChildren("A copy is on its way to production: ", link, ".");
    }
  } catch (error) {
    outcome.className = "problem";
    outcome.textContent =
      error instanceof Refused ? error.message : "The platform does not answer. Try again.";
  }
  byId("promote").disabled = false;
}
