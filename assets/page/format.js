// Times, sizes and dates in the language of the page.
import { language, t } from "./i18n.js";

const pad = (number) => String(number).padStart(2, "0");

// 75 → 1:15, 3675 → 1:01:15
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds || 0));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}

// The same for screen readers: "1 minute 15 seconds".
export function spoken(seconds) {
  const whole = Math.max(0, Math.round(seconds || 0));
  const parts = [["hour", Math.floor(whole / 3600)], ["minute", Math.floor(whole / 60) % 60], ["second", whole % 60]];
  const named = parts.filter(([unit, count], index) => count || (index === 2 && whole < 60));
  return named.map(([unit, count]) => new Intl.NumberFormat(language(), { style: "unit", unit, unitDisplay: "long" }).format(count)).join(" ");
}

export function remaining(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  if (seconds < 5) return t("left.soon");
  const unit = seconds < 90 ? "second" : seconds < 5400 ? "minute" : "hour";
  const value = seconds < 90 ? Math.ceil(seconds / 5) * 5 : seconds < 5400 ? Math.round(seconds / 60) : Math.round(seconds / 360) / 10;
  return t("left", { time: new Intl.NumberFormat(language(), { style: "unit", unit, unitDisplay: "short" }).format(value) });
}

export function bytes(count) {
  const power = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(1, count)) / 3)));
  const unit = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"][power];
  const digits = power > 1 && count / 1000 ** power < 10 ? 1 : 0;
  return new Intl.NumberFormat(language(), { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: digits }).format(count / 1000 ** power);
}

export const percent = (value) => new Intl.NumberFormat(language(), { style: "percent" }).format(value / 100);
export const number = (value, digits = 0) => new Intl.NumberFormat(language(), { maximumFractionDigits: digits }).format(value);
export const moment = (iso) => new Intl.DateTimeFormat(language(), { dateStyle: "medium", timeStyle: "short" }).format(new Date(iso));

// "3 minutes ago", and a date after a day.
export function ago(iso) {
  const seconds = (Date.now() - Date.parse(iso)) / 1000;
  if (seconds >= 86400) return new Intl.DateTimeFormat(language(), { dateStyle: "medium" }).format(new Date(iso));
  const relative = new Intl.RelativeTimeFormat(language(), { numeric: "auto" });
  if (seconds < 45) return t("now");
  return seconds < 3600 ? relative.format(-Math.max(1, Math.round(seconds / 60)), "minute") : relative.format(-Math.round(seconds / 3600), "hour");
}
