// A question before what cannot be undone.
import { button, el } from "./dom.js";
import { t } from "./i18n.js";

// Resolve to whether it was confirmed.
export function confirmed(question, action) {
  return new Promise((resolve) => {
    const finish = (answer) => { dialog.close(); dialog.remove(); resolve(answer); };
    const dialog = el("dialog", { "aria-labelledby": "question", on: { cancel: (event) => { event.preventDefault(); finish(false); } } },
      el("form", { method: "dialog", on: { submit: (event) => { event.preventDefault(); finish(true); } } },
        el("h2", { id: "question" }, question), el("div", { class: "actions" }, button(t("cancel"), () => finish(false), { kind: "plain" }), el("button", { class: "button danger" }, action))));
    document.body.append(dialog);
    dialog.showModal();
  });
}
