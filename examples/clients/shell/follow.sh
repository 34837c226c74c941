#!/usr/bin/env bash
# Creates a request, follows it to its end, and prints its log.
#
#   ./follow.sh run TYPE [NAME=VALUE ...]
#   ./follow.sh stop REQUEST_ID
#
# $SPINC_URL is the URL of the server. $SPINC_CA, a PEM file, is the CA of an https URL. $SPINC_TOKEN_FILE
# has the token of the user.
set -euo pipefail

url=${SPINC_URL:-http://localhost:32308}
options=(--silent --no-buffer ${SPINC_CA:+--cacert "$SPINC_CA"})
names='def name: ["UNKNOWN", "PENDING", "RUNNING", "COMPLETE", "FAIL", "RESERVED", "STOPPED", "SUSPENDED"][.];'

# Prints headers for curl. Other users see the arguments of a command, but not what it reads.
headers() {
  [[ -z ${SPINC_TOKEN_FILE:-} ]] || printf 'Authorization: Bearer %s\n' "$(<"$SPINC_TOKEN_FILE")"
}

if [[ -n ${SPINC_TOKEN_FILE:-} && $url != https://* ]]; then
  echo 'error: a token needs TLS: use an https URL' >&2
  exit 1
fi

# call PATH [CURL_OPTION ...]: prints the answer. curl repeats the call while the server is unavailable or busy.
call() {
  local answer reason path=$1
  shift
  answer=$(curl "${options[@]}" --header @<(headers) --max-time 10 --retry 5 --retry-connrefused \
    --write-out '\nreason: %header{x-spincycle-reason}' "$@" "$url/api/v1$path")
  reason=${answer##*$'\n'reason: }
  answer=${answer%$'\n'reason: *}
  if [[ -n $reason ]]; then
    fail "$reason" "$answer"
  fi
  printf '%s' "$answer"
}

# fail REASON BODY: prints an error. docs/errors.md lists all reasons.
fail() {
  if [[ $1 == UNKNOWN_REQUEST_TYPE ]]; then
    call /request-list | jq --raw-output '"known type: " + .[].Name' >&2
  fi
  echo "error $1: $(jq --raw-output .message <<<"$2")" >&2
  exit 1
}

# create TYPE [NAME=VALUE ...]: prints the new request. All tries have one idempotency key, so they create one request.
create() {
  local type=$1 body key
  shift
  body=$(jq --null-input --arg type "$type" \
    '{type: $type, args: $ARGS.positional | map(capture("(?<key>[^=]*)=(?<value>.*)"; "m")) | from_entries}' \
    --args "$@")
  key=$(od --address-radix=n --format=x8 --read-bytes=16 /dev/urandom | tr -d ' ')
  call /requests --json "$body" --header "Idempotency-Key: $key"
}

# watch ID: prints what happens to a request until its end. After a failure it continues after the last event that
# it received.
watch() {
  local line id='' cursor='' event='' data='' status
  while true; do
    status=000
    while IFS= read -r line; do
      case $line in
        'status: '*) status=${line#status: } ;;
        'event: '*) event=${line#event: } ;;
        'id: '*) id=${line#id: } ;;
        'data: '*) data=${line#data: } ;;
        '{'*) data=$line ;; # the body of an error
        '')
          case $event in
            end) return ;;
            error) status=$(jq .httpStatus <<<"$data") ;;
            *) [[ -z $data ]] || print <<<"$data" ;;
          esac
          cursor=$id event='' data=''
          ;;
      esac
    done < <(curl "${options[@]}" --header @<(headers) ${cursor:+--header "Last-Event-ID: $cursor"} \
      --write-out '\nstatus: %{http_code}\n' "$url/api/v1/requests/$1/watch")
    case $status in
      204) return ;;
      000 | 200 | 429 | 503) sleep 1 ;; # The server is away or busy.
      *) fail "HTTP $status" "$data" ;;
    esac
  done
}

print() {
  jq --raw-output "$names"'
    (.tries[]? | "tried \(.name), try \(.try): \(.state | name)"),
    (.requests[]? | "\(.state | name), \(.finishedJobs) of \(.totalJobs) jobs")'
}

print_log() {
  call "/requests/$1/log" | jq --raw-output "$names"'
    .[] | "log \(.name), try \(.try): \(.state | name), exit \(.exit)",
    (.stdout, .stderr | rtrimstr("\n") | select(. != "") | split("\n")[] | "  " + .)'
}

case ${1:-} in
  run)
    id=$(create "${@:2}" | jq --raw-output .id)
    echo "created $id"
    watch "$id"
    print_log "$id"
    [[ $(call "/requests/$id" | jq "$names"'.state | name') == '"COMPLETE"' ]]
    ;;
  stop)
    # Not repeated, because a second stop skips the finally jobs of the request.
    call "/requests/$2/stop" --request PUT --retry 0
    ;;
  *)
    echo 'usage: follow.sh run TYPE [NAME=VALUE ...] | follow.sh stop REQUEST_ID' >&2
    exit 2
    ;;
esac
