for (const data of document.querySelectorAll("script[data-for]")) {
  vegaEmbed(document.getElementById(data.dataset.for), JSON.parse(data.textContent), {
    renderer: "svg", // colours are CSS variables
    ast: true, // expressions are interpreted: the page's policy allows no eval
    actions: false,
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  });
}

// Vega shows values where a pointer moves; a finger that touches does not
let touched = null;
function touch(target, at) {
  touched?.dispatchEvent(new PointerEvent("pointerout", { bubbles: true }));
  touched = target;
  touched?.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, ...at }));
}
document.addEventListener("click", ({ target, clientX, clientY }) =>
  touch(target.closest(".chart svg") && target, { clientX, clientY }),
);
document.addEventListener("scroll", () => touch(null), { passive: true });
