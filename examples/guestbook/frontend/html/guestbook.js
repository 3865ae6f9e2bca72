const show = async (answer) => {
  const { entries } = await (await answer).json();
  document.querySelector("#entries").replaceChildren(
    ...entries.map(({ name, text }) => Object.assign(document.createElement("li"), { textContent: `${name}: ${text}` })),
  );
};
document.querySelector("#form").addEventListener("submit", (event) => {
  event.preventDefault();
  const body = JSON.stringify(Object.fromEntries(new FormData(event.target)));
  show(fetch("/api/entries", { method: "POST", headers: { "Content-Type": "application/json" }, body }));
});
show(fetch("/api/entries"));
