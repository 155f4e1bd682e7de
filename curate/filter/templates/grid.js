/* Sorts the points by the column of the heading that is clicked, and turns round at the second click. */
for (const button of document.querySelectorAll(".points thead button"))
  button.addEventListener("click", () => {
    const head = button.parentElement, row = head.parentElement;
    const column = [...row.children].indexOf(head);
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of row.children) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = document.querySelector(".points tbody");
    const value = (tr) => tr.children[column].dataset.value;
    const compare = (a, b) => {
      const x = value(a), y = value(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return down ? -order : order;
    };
    body.append(...[...body.children].sort(compare));
  });
