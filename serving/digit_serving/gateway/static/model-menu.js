// Model menu: selects the model that the page is about. The page's address names it, so that it can be linked.

const PARAMETER = "model";

export class ModelMenu {
  #label;
  #select;
  #name = "";

  /** `label` contains the select element. */
  constructor(label) {
    this.#label = label;
    this.#select = label.querySelector("select");
    this.#select.addEventListener("change", () => location.assign(`?${PARAMETER}=${this.#select.value}`));
    // A browser that goes back may restore the page with the menu's later choice.
    addEventListener("pageshow", () => (this.#select.value = this.#name));
  }

  /** Name of the model in the page's address, or "" for the service's default. */
  get model() {
    return new URLSearchParams(location.search).get(PARAMETER) ?? "";
  }

  /** Choose the default again, without loading the page. */
  reset() {
    history.replaceState(null, "", location.pathname);
  }

  /** List the names of the models; `name` is the one that answers. Hidden unless there are several. */
  show(names, name) {
    this.#select.replaceChildren(...names.map((each) => new Option(each, each)));
    this.#name = name;
    this.#select.value = name;
    this.#label.hidden = names.length < 2;
  }
}
