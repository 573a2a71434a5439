// The menu of what the chart shows; choices are stored in the browser.

import {OSCILLATORS, OVERLAYS, warmUpOf} from "./indicators.js";
import {periodOf} from "./own.js";

/** Local storage; works without it too. */
export const remembered = {
  get: (name) => kept(() => localStorage.getItem(name)),
  set: (name, value) => kept(() => localStorage.setItem(name, value)),
};

function kept(call) {
  try {
    return call();
  } catch {
    return null;  // storage is disabled
  }
}

/** Fill the menu with indicators and return the choices; `changed` is called with an id. */
export function choices(menu, {changed}) {
  const overlays = menu.querySelector("#overlays");
  for (const [id, one] of Object.entries(OVERLAYS)) {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), {type: "checkbox", id});
    const about = Object.assign(document.createElement("small"), {textContent: warmUpOf(one)});
    label.append(box, one.name, about);
    overlays.append(label);
  }
  const select = menu.querySelector("#oscillator");
  for (const [value, one] of Object.entries(OSCILLATORS)) {
    select.append(Object.assign(document.createElement("option"), {value, textContent: `${one.name}, ${warmUpOf(one)}`}));
  }
  for (const box of menu.querySelectorAll("input[type=checkbox]")) {
    const before = remembered.get(`show ${box.id}`);
    if (before !== null) box.checked = before === "true";
    box.addEventListener("change", () => {
      remembered.set(`show ${box.id}`, String(box.checked));
      changed(box.id);
    });
  }
  const before = remembered.get("oscillator");
  select.value = before in OSCILLATORS ? before : "";
  select.addEventListener("change", () => {
    remembered.set("oscillator", select.value);
    changed("oscillator");
  });
  for (const field of menu.querySelectorAll("input[type=number]")) {
    field.value = remembered.get(`period ${field.id}`) ?? "";
    field.addEventListener("change", () => {
      if (field.value && periodOf(field.value) === undefined) return void field.reportValidity();
      remembered.set(`period ${field.id}`, field.value);
      changed(field.id);
    });
  }
  for (const one of document.querySelectorAll("details.menu")) closes(one);
  return {
    is: (id) => menu.querySelector(`#${id}`).checked,
    toggle: (id) => menu.querySelector(`#${id}`).click(),
    period: (id) => periodOf(menu.querySelector(`#${id}`).value),
    get oscillator() { return select.value; },
  };
}

/** Close the open menus, and focus the last one's button; false if none was open. */
export function closeMenus() {
  const open = [...document.querySelectorAll("details.menu[open]")];
  for (const one of open) {
    one.removeAttribute("open");
    one.querySelector("summary").focus();
  }
  return open.length > 0;
}

// Close by a click elsewhere or Escape.
function closes(menu) {
  const close = () => menu.removeAttribute("open");
  addEventListener("pointerdown", (event) => menu.contains(event.target) || close());
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    event.stopPropagation();
    close();
    menu.querySelector("summary").focus();
  });
}
