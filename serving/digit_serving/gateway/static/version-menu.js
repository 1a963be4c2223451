// Version menu: selects the model version that predicts. Hidden unless several versions are served.

export class VersionMenu {
  #label;
  #select;

  /** `label` contains the select element. */
  constructor(label) {
    this.#label = label;
    this.#select = label.querySelector("select");
  }

  /** The chosen version, or "" for the service's default. */
  get version() {
    return this.#select.value;
  }

  onChange(listener) {
    this.#select.addEventListener("change", listener);
  }

  /** Choose the default again. */
  reset() {
    this.#select.value = "";
  }

  /** True if the menu lists this version. */
  has(version) {
    return [...this.#select.options].some((option) => option.value === String(version));
  }

  /** List the served versions [{version, labels}]. */
  show(versions) {
    const chosen = this.version;
    const options = versions.map(({ version, labels }) => new Option([version, ...labels].join(" · "), version));
    this.#select.replaceChildren(new Option("Default", ""), ...options);
    this.#select.value = options.some((option) => option.value === chosen) ? chosen : "";
    this.#label.hidden = versions.length < 2;
  }
}
