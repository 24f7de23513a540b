// The dialog that takes an API key. The key stays in this tab.
import { askWith, hasKey, setKey } from "./api.js";
import { show, submit } from "./dialog.js";
import { button, el } from "./dom.js";
import { t } from "./i18n.js";

// Resolve once a key was entered or forgotten. refused: the last one was wrong; needed: there is no way around it.
export const keyDialog = (refused, needed = false) => new Promise((resolve) => {
  const input = el("input", { class: "input", type: "password", id: "key", required: true, autocomplete: "off", placeholder: "stt_…",
    "aria-describedby": "key-hint key-problem", "aria-invalid": refused ? "true" : null });
  const use = (value) => {
    setKey(value);
    resolve();
    if (!needed) dispatchEvent(new Event("key"));
  };
  const forget = hasKey() && !needed && button(t("key.forget"), () => { close(); use(); }, { kind: "danger" });
  const close = show(t("key.title"), [el("p", { class: "soft", id: "key-hint" }, t(needed ? "key.needed" : "key.hint")),
    el("div", { class: "field" }, el("label", { for: "key" }, t("key.label")), input, el("p", { class: "problem", id: "key-problem", role: "alert" }, refused ? t("key.wrong") : ""))],
  { needed, onSubmit: () => use(input.value.trim()), actions: [forget, submit(t("key.use"))].filter(Boolean) });
  input.focus();
});

askWith((refused) => keyDialog(refused, true));
