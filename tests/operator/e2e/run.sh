#!/bin/bash
# The operator on a real node: run.sh GAMESERVER OPERATOR, both static programs. Wants root.
#
# Starts a node (KUBE names the folder with its scripts), installs deploy/, and takes a Gameserver with a
# managed database through its life while players play. Prints how long each step took; the first that
# fails ends it. What a node needs is installed where that can be done (Debian), otherwise named.
set -euo pipefail
gameserver=$(realpath "${1:?usage: run.sh GAMESERVER OPERATOR}") operator=$(realpath "${2:?usage: run.sh GAMESERVER OPERATOR}")
cd "$(dirname "$0")/../../.."
lack() { echo "run.sh: missing: $1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || lack "root, which starts containers"
KUBE=${KUBE:-../shared/kube}
[ -x "$KUBE/start-node.sh" ] || lack "scripts that start a node of Kubernetes; KUBE names their folder"
# shellcheck source=tests/need.sh
. tests/need.sh
need containerd containerd
need runc runc
[ -x /usr/lib/cni/bridge ] || need bridge containernetworking-plugins
need iptables iptables
need conntrack conntrack
need ip iproute2
need gcc gcc libc6-dev
need bc bc
need openssl openssl
need curl curl
need xz xz-utils
need python3 python3
need kubectl kubernetes-client
[ -d /usr/lib/postgresql ] || need pg_ctl postgresql
install_missing
cargo test --locked --test players --no-run
# The node's network has one name, so that there is one node at a time.
exec 9>/tmp/gameserver-e2e.lock
flock -n 9 || { echo "another run has the node: waiting"; flock 9; }
RUN=$(mktemp -d)
export RUN NETNS=kube
# Each pod has a network namespace, which outlives a containerd that is stopped. Other containerds may
# have made some meanwhile: only those with an address of this node's pods are this run's.
namespaces() { ip netns list | sed -n 's/^\(cni-[^ ]*\).*/\1/p' | sort; }
namespaces >"$RUN.namespaces"
own_namespaces() {
    local name
    for name in $(namespaces | comm -13 "$RUN.namespaces" -); do
        if ip -n "$name" -4 addr 2>/dev/null | grep ' 10\.244\.0\.' >/dev/null; then echo "$name"; fi
    done
}
players='' watch=''
stop() {
    local own; own=$(own_namespaces)
    # Cargo's child plays: the whole group.
    [ -z "$players" ] || kill -- "-$players" 2>/dev/null || true
    [ -z "$watch" ] || kill "$watch" 2>/dev/null || true
    "$KUBE/stop.sh" --wipe 9>&-
    xargs -r -n 1 ip netns del <<<"$own" || true
    rm -f "$RUN.namespaces" "$RUN.log"
}
trap stop EXIT

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
            [ -e "$RUN/players" ] && tail -5 "$RUN/players" >&2
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
"$KUBE/start-node.sh" >"$RUN.log" 2>&1 9>&- || { tail "$RUN.log" >&2; exit 1; }
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

for volume in data again backups plain; do
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

inside() { nsenter --net=/run/netns/kube curl --fail --silent --show-error "$@"; }
ask() { inside -H "Content-Type: application/json" -d "$2" "$1"; } # URL BODY
url=$(kubectl get gsv/play -o jsonpath='{.status.endpoint}')
inside "$url/v1/games" | grep -q tictactoe
step "the Service answers"
kubectl scale gsv/play --replicas=3 >/dev/null
until_true 60 "three pods" stands play 0.1.0 3
step "scaled out to 3"
setsid nsenter --net=/run/netns/kube env PLAYERS_ADDRESS="${url#http://}" PLAYERS_STOP="$RUN/stop" \
    cargo test --locked --test players -- --ignored --nocapture >"$RUN/players" 2>&1 9>&- &
players=$!
until_true 300 "players play" grep -q "running 1 test" "$RUN/players"
# Two players a table; some are between two matches when their pod is asked.
players_are() { # LEAST MOST
    local players; players=$(kubectl get gsv/play -o jsonpath='{.status.players}')
    [ "$players" -ge "$1" ] && [ "$players" -le "$2" ]
}
until_true 60 "the status has the players" players_are 8 16
[ "$(kubectl get gsv/play -o jsonpath='{.status.matches}')" -gt 0 ]
step "$(kubectl get gsv/play -o jsonpath='{.status.players} players and {.status.matches} matches in the status')"
kubectl delete pod play-1 --wait=false >/dev/null
gone() { ! kubectl get pod/play-1; }
until_true 60 "it has gone" gone
until_true 60 "it has healed" stands play 0.1.0 3
step "a pod was deleted by hand: healed"
# What `kubectl drain` does to each pod of a node.
evict='{"apiVersion":"policy/v1beta1","kind":"Eviction","metadata":{"name":"play-0","namespace":"default"}}'
old=$(kubectl get pod/play-0 -o jsonpath='{.metadata.uid}')
kubectl create --raw /api/v1/namespaces/default/pods/play-0/eviction -f - <<<"$evict" >/dev/null
gone() { [ "$(kubectl get pod/play-0 -o jsonpath='{.metadata.uid}' 2>/dev/null)" != "$old" ]; }
until_true 60 "it has gone" gone
until_true 60 "it has healed" stands play 0.1.0 3
step "a pod was drained from its node: healed"
kubectl patch gsv/play --type=merge -p '{"spec":{"image":"'"$images"'/gameserver:none"}}' >/dev/null
until_true 120 "a bad image is told" reason play Degraded MigrationFailed
has gsv/play '{.status.readyReplicas}' 3
kubectl get gsv/play -o jsonpath='{.status.conditions[?(@.type=="Degraded")].message}{"\n"}'
step "a bad image: stopped and told"
nsenter --net=/run/netns/kube kubectl --kubeconfig "$RUN/admin.kubeconfig" get gameservers --watch >"$RUN/watch" 2>/dev/null 9>&- &
watch=$!
kubectl patch gsv/play --type=merge -p '{"spec":{"image":"'"$images"'/gameserver:0.1.1"}}' >/dev/null
until_true 30 "the new image comes" kubectl get pods -l app.kubernetes.io/component=game -o jsonpath="{.items[?(@.spec.containers[0].image==\"$images/gameserver:0.1.1\")].metadata.name}"
kubectl -n gameserver-system delete pods --all --wait=false >/dev/null
until_true 120 "it is rolled out" stands play 0.1.1 3
step "rolled out, the operator killed meanwhile"
kill "$watch" && sed 's/^/    /' "$RUN/watch"
watch=''
kubectl scale gsv/play --replicas=1 >/dev/null
until_true 120 "one pod" stands play 0.1.1 1
step "scaled in to 1"
# Another key: a token of before is good, and new ones have the new key.
guest() { ask "$url/v1/sessions/guest" '{}' | sed 's/.*"access_token":"\([^"]*\)".*/\1/'; }
before=$(guest)
kubectl annotate gsv/play gameserver.com/rotate-keys=1 >/dev/null
signs() { [ -n "$(kubectl get secret/play-keys -o jsonpath='{.metadata.annotations.gameserver\.com/old-keys-until}')" ]; }
until_true 180 "all pods sign with the new key" signs
until_true 60 "it is rolled out" stands play 0.1.1 1
[ "$(inside "$url/.well-known/jwks.json" | grep -o '"kid"' | wc -l)" = 2 ]
inside -H "Authorization: Bearer $before" "$url/v1/users/me" >/dev/null
after=$(guest)
[ "${before%%.*}" != "${after%%.*}" ]
step "keys rotated; a token of before is good"
# Last of all, moves count: what was acknowledged is in the logs, once.
touch "$RUN/stop"
wait "$players" || { cat "$RUN/players" >&2; exit 1; }
players=''
grep -E 'matches|longest' "$RUN/players" | sed 's/^/    /'
step "players have finished"

# A backup, by the Job that the CronJob would make (an old cluster serves none), and a second Gameserver
# that begins with it: who has registered at the first can sign in there.
touch "$RUN/backups/play-20200101T000000Z.backup"
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
          args: [backup, /backup/play, --keep, "1"]
          env: [{name: GAMESERVER_DATABASE_URL, valueFrom: {secretKeyRef: {name: play-database, key: url}}}]
          volumeMounts: [{name: backup, mountPath: /backup}]
      volumes: [{name: backup, persistentVolumeClaim: {claimName: backups}}]
END
until_true 60 "a backup" kubectl wait --for=condition=Complete --timeout=1s job/backup
backup=$(cd "$RUN/backups" && echo play-*.backup) # one name: the older one has gone
[ -s "$RUN/backups/$backup" ]
step "backed up; an older one is gone"
kubectl apply -f - >/dev/null <<END
apiVersion: gameserver.com/v1
kind: Gameserver
metadata: {name: again}
spec: {image: "$images/gameserver:0.1.1", database: {managed: {image: "$images/postgres:17"}}, restoreFrom: {volumeClaim: backups, file: $backup}}
END
until_true 120 "a second one with what the first had" stands again 0.1.1 1
again=$(kubectl get gsv/again -o jsonpath='{.status.endpoint}')
ask "$again/v1/sessions" '{"username":"restored","password":"correct horse"}' >/dev/null
step "restored into a second Gameserver"
until_true 60 "the status has nobody any more" players_are 0 0
step "the status has no players any more"

kubectl delete gsv/play gsv/again >/dev/null
no_pods() { [ -z "$(kubectl get pods -l app.kubernetes.io/managed-by=gameserver-operator -o name)" ]; }
until_true 60 "all is gone but the volume" no_pods
kubectl get pvc/play-database >/dev/null
step "deleted; the volumes are still there"

# Without the operator. This cluster has no DNS: the Service's address stands for its name.
kubectl create namespace plain >/dev/null
kubectl -n plain create service clusterip gameserver-database --tcp=5432 >/dev/null
address=$(kubectl -n plain get service/gameserver-database -o jsonpath='{.spec.clusterIP}')
kubectl kustomize deploy/plain/ | here | sed "s#@gameserver-database:#@$address:#; s#image: postgres:#image: $images/postgres:#" |
    kubectl -n plain apply -f - >/dev/null 2>&1
until_true 120 "the plain manifests' pods are ready" kubectl -n plain rollout status deploy/gameserver --timeout=1s
inside "http://$(kubectl -n plain get service/gameserver -o jsonpath='{.spec.clusterIP}')/v1/games" | grep -q tictactoe
step "the plain manifests play without the operator"
