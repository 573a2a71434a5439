// Keys that do something, unless somebody writes.

const WRITES = "input:not([type=checkbox], [type=radio]), select";

/** Call what a key names in `keys`; keys with a modifier are the browser's. */
export function onKeys(target, keys, isOff = () => false) {
  target.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isOff()) return;
    if (event.target.matches(WRITES) || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  });
}
