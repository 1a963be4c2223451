// The key that a service may ask for. The browser forgets it with the tab.

const NAME = "digits-key";

let answer = null;

/** The key that was typed in, or null. */
export function key() {
  return sessionStorage.getItem(NAME);
}

/** Have a key typed in: whether one was. Those who ask at the same time share the answer. */
export function askForKey() {
  return (answer ??= ask().finally(() => (answer = null)));
}

function ask() {
  const dialog = document.querySelector("#key");
  const input = dialog.querySelector("input");
  dialog.returnValue = "";
  input.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        if (dialog.returnValue) sessionStorage.setItem(NAME, input.value);
        resolve(Boolean(dialog.returnValue));
      },
      { once: true },
    );
  });
}
