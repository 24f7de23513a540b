// The dialog that takes an API key. The key stays in this tab.
import { askWith, hasKey, setKey } from "./api.js";
import { button, el } from "./dom.js";
import { t } from "./i18n.js";

// Resolves once a key was entered. refused: the last one was wrong.
export function keyDialog(refused, { needed = false } = {}) {
  return new Promise((resolve) => {
    const problem = el("p", { class: "problem", id: "key-problem", role: "alert" }, refused ? t("key.wrong") : "");
    const input = el("input", { class: "input", type: "password", name: "key", id: "key", required: true, autocomplete: "off", spellcheck: "false",
      placeholder: "stt_…", "aria-describedby": "key-hint key-problem", "aria-invalid": refused ? "true" : null });
    const forget = hasKey() && !needed && button(t("key.forget"), () => finish(undefined), { kind: "danger" });
    const form = el("form", { method: "dialog", on: { submit: (event) => { event.preventDefault(); finish(input.value.trim()); } } },
      el("h2", { id: "key-title" }, t("key.title")),
      el("p", { class: "soft", id: "key-hint" }, t(needed ? "key.needed" : "key.hint")),
      el("div", { class: "field" }, el("label", { for: "key" }, t("key.label")), input, problem),
      el("div", { class: "actions" }, forget, !needed && button(t("cancel"), () => close()), el("button", { class: "button primary" }, t("key.use"))));
    const dialog = el("dialog", { "aria-labelledby": "key-title", on: { cancel: (event) => { if (needed) event.preventDefault(); else close(); } } }, form);
    function close() {
      dialog.close();
      dialog.remove();
    }
    function finish(value) {
      setKey(value);
      close();
      resolve();
      if (!needed) dispatchEvent(new Event("key"));
    }
    document.body.append(dialog);
    dialog.showModal();
    input.focus();
  });
}

askWith((refused) => keyDialog(refused, { needed: true }));
