// Dialogs: a question, a list, a field. The browser keeps the focus in them and gives it back.
import { button, el } from "./dom.js";
import { t } from "./i18n.js";

// Show a dialog and return a function that closes it. onSubmit: Enter or the last button; needed: Escape does not close it.
export function show(title, content, { actions, onSubmit, onCancel, needed = false }) {
  const close = () => { dialog.close(); dialog.remove(); };
  const cancel = (event) => { event.preventDefault(); if (!needed) { close(); onCancel?.(); } };
  const form = el("form", { method: "dialog", on: { submit: (event) => { event.preventDefault(); close(); onSubmit?.(); } } },
    el("h2", { id: "dialog-title" }, title), content,
    el("div", { class: "actions" }, !needed && onSubmit && button(t("cancel"), cancel, { kind: "plain" }), actions));
  const dialog = el("dialog", { "aria-labelledby": "dialog-title", on: { cancel } }, form);
  document.body.append(dialog);
  dialog.showModal();
  return close;
}

export const submit = (label, kind = "primary") => el("button", { class: `button ${kind}` }, label);

// Ask before what cannot be undone. Resolve to whether it was confirmed.
export const confirmed = (question, action) => new Promise((resolve) => {
  show(question, [], { actions: submit(action, "danger"), onSubmit: () => resolve(true), onCancel: () => resolve(false) });
});
