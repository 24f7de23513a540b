// What a browser keeps: preferences for good, the key and broken uploads for the tab. Storage may be refused or full.
function read(store, name) {
  try {
    return JSON.parse(store().getItem(`stt.${name}`)) ?? undefined;
  } catch {
    return undefined;
  }
}

function write(store, name, value) {
  try {
    if (value === undefined) store().removeItem(`stt.${name}`);
    else store().setItem(`stt.${name}`, JSON.stringify(value));
  } catch {
    // a private window without storage works, it only forgets
  }
}

export const recall = (name) => read(() => localStorage, name);
export const remember = (name, value) => write(() => localStorage, name, value);
export const recallHere = (name) => read(() => sessionStorage, name);
export const rememberHere = (name, value) => write(() => sessionStorage, name, value);
