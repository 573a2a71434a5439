"""Whether people can read a page: contrast of every text, names of every control."""

from __future__ import annotations

from tests.e2e.browser import Page

MIN_CONTRAST = 4.5
"""Of text: WCAG 2.2, 1.4.3."""
CONTROLS = {
    "button", "checkbox", "combobox", "link", "radio", "textbox", "radiogroup", "listbox", "image",
    "application", "dialog", "DisclosureTriangle",
}  # fmt: skip

# What lies under a text is painted layer by layer, as browsers do with half-transparent ones.
PALE_TEXTS = """
(() => {
  const context = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const painted = (colour) => {
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (rgb) => rgb.map((one) => one / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, i) => sum + one * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const text = [...element.childNodes].filter((one) => one.nodeType === 3)
      .map((one) => one.data.trim()).join('');
    if (!text || !element.checkVisibility({visibilityProperty: true})) continue;
    const layers = [];
    for (let one = element; one; one = one.parentElement) {
      layers.unshift(getComputedStyle(one).backgroundColor);
    }
    let back = painted('white');
    for (const layer of layers) back = painted(layer);
    const front = painted(getComputedStyle(element).color);
    const [low, high] = [luminance(front), luminance(back)].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < LEAST) found.push(`${text.slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return [...new Set(found)];
})()
"""


async def pale_texts(page: Page) -> list[str]:
    """Visible texts that stand out too little, with their contrast."""
    found: list[str] = await page.run(PALE_TEXTS.replace("LEAST", str(MIN_CONTRAST)))
    return found


async def names_of_controls(page: Page) -> dict[str, list[str]]:
    """What screen readers announce of each control, by role; "" announces nothing."""
    nodes = (await page.call("Accessibility.getFullAXTree"))["nodes"]
    found: dict[str, list[str]] = {}
    for one in nodes:
        if not one.get("ignored") and (role := one["role"]["value"]) in CONTROLS:
            found.setdefault(role, []).append(one.get("name", {}).get("value", "").strip())
    return found
