"use strict";
// Filters, sorting, and everything open in print. Without this script the whole page is there; nothing is built from data.
(function () {
  const form = document.querySelector("form.filters");
  const rows = Array.from(document.querySelectorAll("table.rows tbody tr"));

  function filter() {
    const wishes = Array.from(form.querySelectorAll("select")).filter((s) => s.value !== "");
    const shown = new Set();
    const tasks = new Set();
    for (const row of rows) {
      const fits = wishes.every((s) => row.dataset[s.name] === s.value);
      if (fits) {
        shown.add(row.dataset.row);
        tasks.add(row.dataset.task);
      }
    }
    const all = wishes.length === 0;
    for (const one of document.querySelectorAll("[data-row]")) {
      one.classList.toggle("off", !shown.has(one.dataset.row));
    }
    for (const cell of document.querySelectorAll("[data-rows]")) {
      cell.classList.toggle("off", !all && !cell.dataset.rows.split(" ").some((row) => shown.has(row)));
    }
    for (const part of document.querySelectorAll("[data-task]:not([data-row])")) {
      part.classList.toggle("off", !all && !tasks.has(part.dataset.task));
    }
    const output = form.querySelector("output");
    output.textContent = output.dataset.text.replace("{n}", String(shown.size)).replace("{all}", String(rows.length));
  }

  if (form) {
    form.hidden = false;
    form.addEventListener("change", filter);
    form.addEventListener("reset", () => setTimeout(filter, 0));
    form.addEventListener("submit", (event) => event.preventDefault());
    filter();
  }

  function valueOf(row, column) {
    const cell = row.cells[column];
    const text = cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v;
    return text === "" ? null : isNaN(Number(text)) ? text : Number(text);
  }

  // Unknown values stay at the end whichever way is sorted.
  function compare(a, b, sign) {
    if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-label", head.textContent.trim());
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const sorted = Array.from(body.rows).sort((x, y) => compare(valueOf(x, column), valueOf(y, column), down ? -1 : 1));
        body.append(...sorted);
      });
    });
  }

  // A link to something inside a closed part opens it.
  function reveal() {
    const target = location.hash.length > 1 ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    for (let part = target; part; part = part.parentElement) {
      if (part.tagName === "DETAILS") part.open = true;
    }
    if (target) target.scrollIntoView();
  }
  window.addEventListener("hashchange", reveal);
  reveal();

  const opened = [];
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not([open])")) {
      part.open = true;
      opened.push(part);
    }
  });
  window.addEventListener("afterprint", () => {
    for (const part of opened.splice(0)) part.open = false;
  });
})();
