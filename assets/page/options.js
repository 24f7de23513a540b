// The options of the next recordings: language, model, vocabulary, priority. The browser remembers them.
import { call } from "./api.js";
import { el } from "./dom.js";
import { t } from "./i18n.js";
import { recall, remember } from "./memory.js";

const DEFAULTS = { language: "auto", model: "", priority: "normal", prompt: "" };
const MAX_PROMPT = 2000;

export const options = () => ({ ...DEFAULTS, ...recall("options") });
const change = (values) => remember("options", { ...options(), ...values });

// The fields of a submit. Words carry the times and probabilities that the reader marks.
export function submitFields() {
  const { language, model, priority, prompt } = options();
  return { language, priority, words: "true", ...(model ? { model } : {}), ...(prompt.trim() ? { prompt: prompt.trim() } : {}) };
}

export function optionsPanel() {
  const now = options();
  const models = el("select", { class: "input", id: "model", on: { change: () => change({ model: models.value }) } }, el("option", { value: "" }, t("model.default")));
  fillModels(models, now.model);
  const prompt = el("textarea", { class: "input", id: "prompt", rows: 3, maxlength: MAX_PROMPT, placeholder: t("prompt.example"), "aria-describedby": "prompt-hint",
    on: { input: () => change({ prompt: prompt.value }) } });
  prompt.value = now.prompt;
  return el("section", { class: "options", "aria-label": t("options") },
    choices("language", ["auto", "en", "vi"], now.language),
    el("details", { open: Boolean(now.model || now.prompt || now.priority !== "normal") },
      el("summary", {}, t("options.more")),
      el("div", {},
        el("div", { class: "field" }, el("label", { for: "model" }, t("model")), models),
        el("div", { class: "field" }, el("label", { for: "prompt" }, t("prompt")), prompt, el("p", { class: "hint", id: "prompt-hint" }, t("prompt.hint"))),
        choices("priority", ["high", "normal", "low"], now.priority))));
}

function choices(name, values, chosen) {
  const one = (value) => el("label", {},
    el("input", { type: "radio", name, value, checked: value === chosen, on: { change: () => change({ [name]: value }) } }), el("span", {}, t(`${name}.${value}`)));
  return el("fieldset", { class: "field" }, el("span", { id: `${name}-label` }, t(name)),
    el("div", { class: "choices", role: "radiogroup", "aria-labelledby": `${name}-label` }, values.map(one)));
}

async function fillModels(select, chosen) {
  try {
    const { models } = await call("/api/v1/models");
    const names = models.filter((model) => model.workers > 0).map((model) => model.name);
    if (chosen && !names.includes(chosen)) change({ model: "" });
    select.append(...names.map((name) => el("option", { value: name, selected: name === chosen }, name)));
  } catch {
    // the default model needs no list
  }
}
