// The start page: the models that the key may see.

import { Refused, ask, askAgain, statusOf, withKey } from "./api.js";

const byId = (id) => document.getElementById(id);

withKey(async () => {
  byId("models-card").hidden = false;
  const note = byId("models-note");
  note.textContent = "Looking …";
  try {
    const { models } = await ask("/v1/models");
    const shown = models.slice(0, 100);
    const rows = await Promise.all(shown.map(row));
    byId("models").querySelector("tbody").replaceChildren(...rows);
    byId("models").hidden = rows.length === 0;
    note.textContent =
      models.length === 0
        ? "There are no models yet."
        : models.length > shown.length
          ? `The first ${shown.length} of ${models.length}.`
          : "";
  } catch (error) {
    byId("models-card").hidden = true;
    askAgain(error instanceof Refused ? error.message : "The platform does not answer. Try again.");
  }
});

async function row(model) {
  const { deployments } = await ask(`/v1/models/${encodeURIComponent(model.id)}/deployments`);
  const chosen = deployments.find((one) => one.is_production) ?? deployments[0];
  const line = document.createElement("tr");
  const cells = [model.name, model.id];
  for (const text of cells) line.append(cell(text));
  if (chosen === undefined) {
    line.append(cell("none"), cell("–"), cell("–"));
    return line;
  }
  const link = document.createElement("a");
  link.href = `/models/${encodeURIComponent(model.id)}/logs/${encodeURIComponent(chosen.id)}`;
  link.textContent = chosen.name;
  const { words, mood } = statusOf(chosen);
  const status = cell(words);
  status.className = mood;
  line.append(cell(link), status, cell(String(chosen.active_replica_count)));
  return line;
}

function cell(content) {
  const made = document.createElement("td");
  made.append(content);
  return made;
}
