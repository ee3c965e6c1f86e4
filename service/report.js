"use strict";
// Tables are complete without this; it sorts them by a click on a heading, numbers largest first.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  headings.forEach((heading, column) => {
    if (!heading.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const numeric = heading.classList.contains("number");
      const first = numeric ? "descending" : "ascending";
      const other = numeric ? "ascending" : "descending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      headings.forEach((one) => one.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => {
        const cell = row.cells[column];
        if (!numeric) return cell.textContent.trim();
        return cell.dataset.sort === undefined || cell.dataset.sort === "" ? null : Number(cell.dataset.sort);
      };
      const rows = [...body.rows].map((row) => [value(row), row]);
      rows.sort(([one], [another]) => {
        // What has no number stays at the end, either way.
        if (one === null || another === null) return (one === null) - (another === null);
        return sign * (numeric ? one - another : one.localeCompare(another));
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}
