for (const data of document.querySelectorAll("script[data-for]")) {
  vegaEmbed(document.getElementById(data.dataset.for), JSON.parse(data.textContent), {
    renderer: "svg", // colours are CSS variables
    ast: true, // expressions are interpreted: the page's policy allows no eval
    actions: false,
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  });
}
