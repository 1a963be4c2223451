# Entry of the model server's container: bash start-model-server.sh /usr/bin/tensorflow_model_server FLAGS...
#
# TensorFlow Serving ends at its start if a version is damaged, and a restarted container meets the same file again. So
# the server reads a copy of models.config, without damaged versions, and with this folder's paths. The copy follows the
# file: `digits models` changes what is served without a restart. A server that ends because it can't load versions
# names them: it starts again without them.
set -u
# TensorFlow leaves oneDNN out on CPUs without AVX-512, where it halves the reader's time, too.
export TF_ENABLE_ONEDNN_OPTS=${TF_ENABLE_ONEDNN_OPTS:-1}
shopt -s extglob nullglob
models=${DIGITS_MODELS:-/models}
copy=${TMPDIR:-/tmp}/models.config
failed=' '

# True if the version in the folder has its files, with the checksums of its publication.
is_whole() {
  [ -e "$1/saved_model.pb" ] && [ -e "$1/variables/variables.index" ] || return
  [ ! -e "$1/assets.extra/SHA256SUMS" ] || (cd "$1" && sha256sum --check --status assets.extra/SHA256SUMS)
}

# Write the copy of $text, the content of models.config. Digits writes one field a line.
write() {
  local line name block='' versions=''
  if [[ $text != '# Written by Digits'* ]]; then
    printf '%s\n' "$text"
  else
    while IFS= read -r line; do
      case $line in
        '  config {') block=$line versions='' ;;
        '    name: '*) name=${line#*'"'} name=${name%'"'} block+=$'\n'$line ;;
        '    base_path: '*) block+=$'\n'"    base_path: \"$models/$name\"" ;;
        '        versions: '*)
          set -- "$models/$name"/*(0)"${line##* }"
          if [[ $failed == *" $name/${line##* } "* ]]; then
            echo "$models/$name/${line##* } can't be loaded, and is not served until the next start" >&2
          elif [ $# != 0 ] && is_whole "$1"; then
            block+=$'\n'$line versions+=' '${line##* }
          else
            echo "$models/$name/${line##* } is missing or damaged, and not served: see \`digits models ls\`" >&2
          fi ;;
        '  }') [ -z "$versions" ] || printf '%s\n' "$block" "$line"; block='' ;;
        *) if [ -n "$block" ]; then block+=$'\n'$line; else printf '%s\n' "$line"; fi ;;
      esac
    done <<<"$text"
  fi >"$copy.new"
  mv "$copy.new" "$copy"
}

while text=$(<"$models/models.config"); do
  write
  while sleep 1 && kill -0 $$ 2>/dev/null; do
    new=$(<"$models/models.config") && [ "$new" != "$text" ] && text=$new && write
  done &
  follower=$!
  "$@" >"$copy.out" &
  server=$!
  trap 'kill $server 2>/dev/null' TERM
  wait $server
  # A signal ends the wait, not the server.
  wait $server
  status=$?
  kill $follower
  cat "$copy.out"
  named=$(<"$copy.out") before=$failed
  while [[ $named =~ \{name:\ ([^ ]+)\ version:\ ([0-9]+)\}\ due\ to\ error(.*) ]]; do
    failed+="${BASH_REMATCH[1]}/${BASH_REMATCH[2]} " named=${BASH_REMATCH[3]}
    # A file that Digits did not write names it again.
    [[ $before != *" ${BASH_REMATCH[1]}/${BASH_REMATCH[2]} "* ]] || exit $status
  done
  [ "$failed" != "$before" ] || exit $status
done
