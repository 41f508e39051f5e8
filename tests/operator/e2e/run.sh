#!/bin/bash
# The operator on a real node: run.sh GAMESERVER OPERATOR, both static programs. Wants root.
#
# Starts a node (KUBE names the folder with its scripts), installs deploy/, and takes a Gameserver with a
# managed database through its life. Prints how long each step took; the first that fails ends it.
set -euo pipefail
cd "$(dirname "$0")/../../.."
cargo test --locked --test players --no-run
gameserver=${1:?usage: run.sh GAMESERVER OPERATOR} operator=${2:?usage: run.sh GAMESERVER OPERATOR}
KUBE=${KUBE:-../shared/kube}
[ -x "$KUBE/start-node.sh" ] || { echo "run.sh: missing: scripts that start a node; KUBE names their folder" >&2; exit 1; }
RUN=$(mktemp -d)
export RUN NETNS=kube
trap '"$KUBE/stop.sh" --wipe' EXIT

kubectl() { nsenter --net=/run/netns/kube kubectl --kubeconfig "$RUN/admin.kubeconfig" "$@"; }
began=$(date +%s%N)
step() { # WHAT
    local now; now=$(date +%s%N)
    printf '%-44s %6d ms\n' "$1" $(((now - began) / 1000000)); began=$(date +%s%N)
}
until_true() { # SECONDS WHAT COMMAND…
    local end=$(($(date +%s) + $1)) what=$2; shift 2
    until "$@" >/dev/null 2>&1; do
        if [ "$(date +%s)" -ge "$end" ]; then
            echo "run.sh: $what: not in time" >&2
            kubectl get gsv,pods,jobs -A -o wide >&2; kubectl get gsv -A -o yaml | grep -A60 '^  status:' >&2
            kubectl -n gameserver-system logs deploy/gameserver-operator --tail=20 >&2 || true
            exit 1
        fi
        sleep 0.2
    done
}
has() { # OBJECT JSONPATH VALUE
    [ "$(kubectl get "$1" -o jsonpath="$2" 2>/dev/null)" = "$3" ]
}
reason() { # NAME CONDITION REASON
    has "gsv/$1" "{.status.conditions[?(@.type==\"$2\")].reason}" "$3"
}
stands() { # NAME IMAGE COUNT: rolled out, and nothing else is left
    reason "$1" Progressing Complete && reason "$1" Degraded AsDesired &&
        has "gsv/$1" '{.status.version} {.status.readyReplicas} {.status.observedGeneration}' \
            "$2 $3 $(kubectl get "gsv/$1" -o jsonpath='{.metadata.generation}')" &&
        [ "$(kubectl get pods -l "app.kubernetes.io/instance=$1,app.kubernetes.io/component=game" -o name | wc -l)" = "$3" ]
}

images=localhost # where the node has them from
here() { sed "s#\(image: *\"*\)gameserver#\1$images/gameserver#"; }

"$KUBE/unpack.sh" >/dev/null
"$KUBE/start-node.sh" >"$RUN.log" 2>&1 || { tail "$RUN.log" >&2; exit 1; }
for version in 0.1.0 0.1.1; do "$KUBE/load-image.sh" "$images/gameserver:$version" /gameserver "/gameserver=$gameserver"; done >/dev/null
"$KUBE/load-image.sh" "$images/gameserver-operator:0.1.0" /gameserver-operator "/gameserver-operator=$operator" >/dev/null

# PostgreSQL as Debian has it: programs, what they link, and their data.
programs=$(ls -d /usr/lib/postgresql/*/bin | tail -1) postgres=$(basename "$(dirname "$programs")")
sed "s/POSTGRES_VERSION/$postgres/" tests/operator/e2e/postgres.sh >"$RUN/entry.sh"
printf 'root:x:0:0::/:/bin/sh\npostgres:x:999:999::/:/bin/sh\n' >"$RUN/passwd"
files=("/entry.sh=$RUN/entry.sh" "/etc/passwd=$RUN/passwd" "/pg_isready=$programs/pg_isready" "/bin/sh=/bin/dash")
for file in $(find -L "/usr/lib/postgresql/$postgres/lib" "/usr/share/postgresql/$postgres" /usr/share/zoneinfo/Etc -type f ! -name '*.bc') "$programs"/{postgres,initdb}; do
    files+=("$file=$file")
done
for file in $(ldd "$programs"/{postgres,initdb,pg_isready} /bin/dash "/usr/lib/postgresql/$postgres/lib"/{plpgsql,dict_snowball}.so | grep -o '/[^ ]*\.so[^ :]*' | sort -u); do
    files+=("$file=$(readlink -f "$file")")
done
"$KUBE/load-image.sh" "$images/postgres:17" "/bin/sh /entry.sh" "${files[@]}" >/dev/null
step "node and images"

for volume in data again backups; do
    mkdir -p "$RUN/$volume"; chmod 777 "$RUN/$volume"
    printf 'apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: %s}\nspec: {capacity: {storage: %s}, accessModes: [%s], hostPath: {path: %s}}\n' \
        "$volume" 1Gi "$([ $volume = backups ] && echo ReadWriteMany || echo ReadWriteOnce)" "$RUN/$volume" | kubectl apply -f - >/dev/null
done
kubectl kustomize deploy/ | here | kubectl apply --validate=false -f - >/dev/null
until_true 60 "the operator is ready" kubectl -n gameserver-system wait --for=condition=Available --timeout=1s deploy/gameserver-operator
step "operator installed and ready"
{ here <deploy/samples/smallest.yaml; echo "  database: {managed: {image: $images/postgres:17}}"; } | kubectl apply -f - >/dev/null
until_true 180 "the smallest sample is available" stands play 0.1.0 1
step "smallest sample from nothing to playable"

url=$(kubectl get gsv/play -o jsonpath='{.status.endpoint}')
nsenter --net=/run/netns/kube curl --fail --silent --show-error "$url/v1/games" | grep -q tictactoe
step "the Service answers"
kubectl scale gsv/play --replicas=3 >/dev/null
until_true 60 "three pods" stands play 0.1.0 3
step "scaled out to 3"
nsenter --net=/run/netns/kube env PLAYERS_ADDRESS="${url#http://}" PLAYERS_STOP="$RUN/stop" \
    cargo test --locked --test players -- --ignored --nocapture >"$RUN/players" 2>&1 &
players=$!
until_true 300 "players play" grep -q "running 1 test" "$RUN/players"
sleep 3
kubectl delete pod play-1 --wait=false >/dev/null
gone() { ! kubectl get pod/play-1; }
until_true 60 "it has gone" gone
until_true 60 "it has healed" stands play 0.1.0 3
step "a pod was deleted by hand: healed"
kubectl patch gsv/play --type=merge -p '{"spec":{"image":"'"$images"'/gameserver:none"}}' >/dev/null
until_true 120 "a bad image is told" reason play Degraded MigrationFailed
has gsv/play '{.status.readyReplicas}' 3
kubectl get gsv/play -o jsonpath='{.status.conditions[?(@.type=="Degraded")].message}{"\n"}'
step "a bad image: stopped and told"
nsenter --net=/run/netns/kube kubectl --kubeconfig "$RUN/admin.kubeconfig" get gameservers --watch >"$RUN/watch" 2>/dev/null &
watch=$!
kubectl patch gsv/play --type=merge -p '{"spec":{"image":"'"$images"'/gameserver:0.1.1"}}' >/dev/null
until_true 30 "the new image comes" kubectl get pods -l app.kubernetes.io/component=game -o jsonpath="{.items[?(@.spec.containers[0].image==\"$images/gameserver:0.1.1\")].metadata.name}"
kubectl -n gameserver-system delete pods --all --wait=false >/dev/null
until_true 120 "it is rolled out" stands play 0.1.1 3
step "rolled out, the operator killed meanwhile"
kill "$watch" && sed 's/^/    /' "$RUN/watch"
kubectl scale gsv/play --replicas=1 >/dev/null
until_true 120 "one pod" stands play 0.1.1 1
step "scaled in to 1"
# Last of all moves count: what was acknowledged is in the logs, once.
touch "$RUN/stop"
wait "$players" || { cat "$RUN/players" >&2; exit 1; }
grep -E 'matches|longest' "$RUN/players" | sed 's/^/    /'
step "players have finished"

# A backup, by the Job that the CronJob would make (an old cluster serves none), and a second Gameserver
# that begins with it: who has registered at the first can sign in there.
ask() { # PATH BODY
    nsenter --net=/run/netns/kube curl --fail --silent --show-error -H "Content-Type: application/json" -d "$2" "$1"
}
ask "$url/v1/users" '{"username":"restored","password":"correct horse"}' >/dev/null
kubectl apply -f - >/dev/null <<END
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: backups}
spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: backup}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      enableServiceLinks: false
      securityContext: {runAsUser: 65532, runAsNonRoot: true}
      containers:
        - name: backup
          image: $images/gameserver:0.1.1
          args: [backup, /backup/play.backup]
          env: [{name: GAMESERVER_DATABASE_URL, valueFrom: {secretKeyRef: {name: play-database, key: url}}}]
          volumeMounts: [{name: backup, mountPath: /backup}]
      volumes: [{name: backup, persistentVolumeClaim: {claimName: backups}}]
END
until_true 60 "a backup" kubectl wait --for=condition=Complete --timeout=1s job/backup
step "backed up"
kubectl apply -f - >/dev/null <<END
apiVersion: gameserver.com/v1
kind: Gameserver
metadata: {name: again}
spec: {image: "$images/gameserver:0.1.1", database: {managed: {image: "$images/postgres:17"}}, restoreFrom: {volumeClaim: backups, file: play.backup}}
END
until_true 120 "a second one with what the first had" stands again 0.1.1 1
again=$(kubectl get gsv/again -o jsonpath='{.status.endpoint}')
ask "$again/v1/sessions" '{"username":"restored","password":"correct horse"}' >/dev/null
step "restored into a second Gameserver"

kubectl delete gsv/play gsv/again >/dev/null
no_pods() { [ -z "$(kubectl get pods -l app.kubernetes.io/managed-by=gameserver-operator -o name)" ]; }
until_true 60 "all is gone but the volume" no_pods
kubectl get pvc/play-database >/dev/null
step "deleted; the volumes are still there"
