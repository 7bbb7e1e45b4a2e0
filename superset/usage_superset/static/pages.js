// The name of what a page is about, in its heading and in the browser's title. Superset keeps the filters of a page on
// the server: whenever it has told the server of other ones, the server is asked which account or application they name.
(() => {
  "use strict";
  const page = /^\/superset\/dashboard\/(account|application)\//;
  const kept = "/filter_state";
  const titles = {account: "Account", application: "Application"};
  let asked = 0;

  const show = (title) => {
    const heading = document.querySelector("#MARKDOWN-frame h1");
    if (!heading) {
      setTimeout(() => show(title), 300);
      return;
    }
    heading.textContent = title;
    document.title = title;
  };

  const ask = async () => {
    const found = page.exec(location.pathname);
    if (!found) return;
    const number = ++asked;
    const answer = await fetch("/page-names/", {headers: {Accept: "application/json"}});
    if (!answer.ok || number !== asked) return;
    const names = (await answer.json())[found[1]] || [];
    show(names.length === 1 ? names[0] : titles[found[1]]);
  };

  new PerformanceObserver((list) => {
    if (list.getEntries().some((entry) => new URL(entry.name).pathname.includes(kept))) setTimeout(ask, 200);
  }).observe({type: "resource", buffered: true});
})();
