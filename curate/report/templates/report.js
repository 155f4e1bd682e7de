for (const cut of document.querySelectorAll(".strip > .cut")) {
  const strip = cut.parentElement;
  strip.scrollLeft = cut.offsetLeft - strip.offsetLeft - strip.clientWidth / 2 + cut.offsetWidth / 2;
}
