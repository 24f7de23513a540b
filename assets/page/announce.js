// Messages: a toast for eyes, a live region for screen readers.
import { button, el } from "./dom.js";
import { t } from "./i18n.js";

const region = el("div", { class: "hidden-text", role: "status", "aria-live": "polite", id: "announcements" });
const stack = el("div", { class: "toasts", role: "region" });

export function mount() {
  document.body.append(region, stack);
}

// Say something to screen readers only. The same text twice is said twice.
export function say(text) {
  region.textContent = region.textContent === text ? `${text} ` : text;
}

// Show a toast for some seconds, or until its action was used. It stays while it is hovered or focused.
export function toast(text, { action, onAction, seconds = 6, onGone } = {}) {
  const node = el("div", { class: "toast" }, el("p", {}, text));
  stack.setAttribute("aria-label", t("messages"));
  let timer;
  const start = () => { clearTimeout(timer); timer = setTimeout(close, seconds * 1000); };
  const hold = () => clearTimeout(timer);
  function close() {
    clearTimeout(timer);
    if (node.contains(document.activeElement)) document.querySelector("main h1")?.focus();
    node.remove();
    onGone?.();
  }
  if (action) node.append(button(action, () => { onAction(); onGone = null; close(); }));
  node.append(button(t("close"), close, { symbol: "close", square: true }));
  node.addEventListener("pointerenter", hold);
  node.addEventListener("focusin", hold);
  node.addEventListener("pointerleave", start);
  node.addEventListener("focusout", start);
  stack.append(node);
  say(action ? `${text} ${action}` : text);
  start();
  return close;
}
