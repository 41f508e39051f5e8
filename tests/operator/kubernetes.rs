//! A real API server for all tests of this process, and the operator as a process of each test.
//!
//! The programs are found in `KUBEBUILDER_ASSETS` (envtest's name), or through the scripts in
//! `../shared/kube`. Without them tests say what they lack; with
//! `REQUIRE_KUBERNETES` they fail.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gameserver::operator::crd::{Gameserver, GameserverStatus};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Client, Config, ResourceExt as _};
use serde_json::{Value, json};

use crate::proxy::Proxy;

/// How long anything may take before a test fails: generous, since machines that test are busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Ends everything when this process has ended, however that came: its end of the pipe closes.
const SUPERVISOR: &str = r#"
"$ASSETS/etcd" --data-dir "$RUN/etcd" --unsafe-no-fsync --log-level=error \
  --listen-client-urls "http://127.0.0.1:$ETCD" --advertise-client-urls "http://127.0.0.1:$ETCD" \
  --listen-peer-urls "http://127.0.0.1:$PEER" --initial-advertise-peer-urls "http://127.0.0.1:$PEER" \
  --initial-cluster "default=http://127.0.0.1:$PEER" >"$RUN/etcd.log" 2>&1 &
PIDS=$!
"$ASSETS/kube-apiserver" --etcd-servers="http://127.0.0.1:$ETCD" --cert-dir="$RUN/certs" \
  --bind-address=127.0.0.1 --secure-port="$PORT" --token-auth-file="$RUN/tokens.csv" --authorization-mode=RBAC \
  --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$RUN/sa.key" \
  --service-account-signing-key-file="$RUN/sa.key" --service-cluster-ip-range=10.96.0.0/16 \
  --disable-admission-plugins=ServiceAccount --endpoint-reconciler-type=none \
  --audit-policy-file="$RUN/audit.yaml" --audit-log-path="$RUN/audit.log" >"$RUN/apiserver.log" 2>&1 &
PIDS="$PIDS $!"
if [ -x "$ASSETS/apiextensions-apiserver" ]; then
  "$ASSETS/apiextensions-apiserver" --etcd-servers="http://127.0.0.1:$ETCD" --etcd-prefix=/newest \
    --bind-address=127.0.0.1 --secure-port="$NEWEST" --cert-dir="$RUN/newest" --kubeconfig="$RUN/admin" \
    --authentication-kubeconfig="$RUN/admin" --authorization-kubeconfig="$RUN/admin" --authentication-skip-lookup \
    --disable-admission-plugins=ValidatingAdmissionPolicy,MutatingAdmissionPolicy \
    --enable-priority-and-fairness=false >"$RUN/newest.log" 2>&1 &
  PIDS="$PIDS $!"
fi
read -r _
kill $PIDS
wait
rm -rf "$RUN"
"#;

/// The API server that all tests share.
pub struct Kubernetes {
    run: PathBuf,
    port: u16,
    /// Of its store.
    etcd: u16,
    /// Of the newest server for custom resources, where the API server is an old one.
    newest: Option<u16>,
    _supervisor: Child,
}

/// The API server, or `None` (and why, on stderr) where there is none to be had.
pub fn kubernetes() -> Option<&'static Kubernetes> {
    static KUBERNETES: OnceLock<Option<Kubernetes>> = OnceLock::new();
    let kubernetes = KUBERNETES.get_or_init(|| match assets() {
        Ok(assets) => Some(Kubernetes::start(&assets)),
        Err(lack) => {
            assert!(std::env::var_os("REQUIRE_KUBERNETES").is_none(), "{lack}");
            eprintln!("skipped: {lack}");
            None
        }
    });
    kubernetes.as_ref()
}

fn assets() -> Result<PathBuf, String> {
    if let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") {
        return Ok(assets.into());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/kube/unpack.sh");
    let lack = "KUBEBUILDER_ASSETS has to name a folder with etcd and kube-apiserver";
    let output = Command::new(&script).output().map_err(|_| lack.to_owned())?;
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() { Ok(printed.into()) } else { Err(lack.into()) }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Kubernetes {
    fn start(assets: &Path) -> Self {
        let run = tempfile::tempdir().unwrap().keep();
        let write = |name: &str, text: &str| std::fs::write(run.join(name), text).unwrap();
        write(
            "tokens.csv",
            "admin,admin,admin,\"system:masters\"\noperator,operator,operator\nrights,rights,rights\nfew,few,few\n",
        );
        write(
            "audit.yaml",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata, users: [rights]}]\n",
        );
        let key = Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(run.join("sa.key"))
            .args(["2048"])
            .output()
            .unwrap();
        assert!(key.status.success(), "openssl: {key:?}");
        let (port, etcd) = (free_port(), free_port());
        let newest = assets.join("apiextensions-apiserver").exists().then(free_port);
        write("admin", &kubeconfig(port, "admin", "default"));
        let supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR])
            .env("ASSETS", assets)
            .env("RUN", &run)
            .env("PORT", port.to_string())
            .env("ETCD", etcd.to_string())
            .env("NEWEST", newest.unwrap_or_default().to_string())
            .env("PEER", free_port().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let kubernetes = Self { run, port, etcd, newest, _supervisor: supervisor };
        kubernetes.prepare();
        kubernetes
    }

    /// Waits for it, and installs the definition and the rights.
    fn prepare(&self) {
        let began = Instant::now();
        while !self.kubectl(&["get", "--raw", "/readyz"], "").0 {
            assert!(began.elapsed() < DEADLINE, "the API server does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for file in ["deploy/crd.yaml", "deploy/operator/rbac.yaml"] {
            let path = root.join(file);
            self.must(&["create", "namespace", "gameserver-system"], "", true);
            self.must(&["apply", "--validate=false", "-f", path.to_str().unwrap()], "", false);
        }
        for user in ["operator", "rights"] {
            let name = format!("test-{user}");
            let user = format!("--user={user}");
            let role = "--clusterrole=gameserver-operator";
            self.must(&["create", "clusterrolebinding", &name, role, &user], "", false);
        }
        let established = ["wait", "--for=condition=Established", "crd/gameservers.gameserver.com"];
        self.must(&established, "", false);
    }

    fn must(&self, args: &[&str], input: &str, may_fail: bool) {
        let (well, output) = self.kubectl(args, input);
        assert!(well || may_fail, "kubectl {args:?}: {output}");
    }

    /// Whether `kubectl` did as it was told, and what it said.
    pub fn kubectl(&self, args: &[&str], input: &str) -> (bool, String) {
        let mut child = Command::new("kubectl")
            .args([&format!("--server=https://127.0.0.1:{}", self.port), "--token=admin"])
            .args(["--insecure-skip-tls-verify", "--kubeconfig=/dev/null"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl is there");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Audited requests of the user `rights`.
    pub fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.run.join("audit.log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The key by which the newest server for custom resources stores what has this one elsewhere.
    pub fn newest_key(&self, key: &str) -> String {
        let prefix = if self.newest.is_some() { "newest" } else { "registry" };
        format!("/{prefix}/{key}")
    }

    /// An object as it is stored.
    pub fn stored(&self, key: &str) -> Value {
        let found = self.etcd("range", &json!({ "key": base64(key.as_bytes()) }));
        let value: ByteString = serde_json::from_value(found["kvs"][0]["value"].clone()).unwrap();
        serde_json::from_slice(&value.0).unwrap()
    }

    /// Stores an object past the API server, which would not take it.
    pub fn store(&self, key: &str, object: &Value) {
        let value = base64(object.to_string().as_bytes());
        let put = self.etcd("put", &json!({ "key": base64(key.as_bytes()), "value": value }));
        assert!(put["header"].is_object(), "{put}");
    }

    fn etcd(&self, what: &str, body: &Value) -> Value {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.etcd)).unwrap();
        let body = body.to_string();
        let head = format!("POST /v3/kv/{what} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).unwrap();
        let answer = std::io::read_to_string(stream).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn log(&self) -> String {
        let log = |name: &str| std::fs::read_to_string(self.run.join(name)).unwrap_or_default();
        let tail = |text: String| text.lines().rev().take(10).collect::<Vec<_>>().join("\n");
        tail(log("apiserver.log")) + &tail(log("etcd.log"))
    }

    /// A kubeconfig for this user.
    pub fn kubeconfig(&self, user: &str, namespace: &str) -> String {
        kubeconfig(self.port, user, namespace)
    }

    /// The way to the newest server for custom resources, once it answers.
    pub async fn newest(&self) -> Client {
        let client =
            client(&kubeconfig(self.newest.unwrap_or(self.port), "admin", "default")).await;
        let began = Instant::now();
        while client.apiserver_version().await.is_err() {
            assert!(began.elapsed() < DEADLINE, "the server for custom resources does not start");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        client
    }
}

fn base64(bytes: &[u8]) -> Value {
    serde_json::to_value(ByteString(bytes.to_vec())).unwrap()
}

async fn client(kubeconfig: &str) -> Client {
    Client::try_from(config(kubeconfig).await).unwrap()
}

/// A client that takes an answer as it is.
pub async fn client_without_retries(kubeconfig: &str) -> Client {
    let mut config = config(kubeconfig).await;
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

async fn config(kubeconfig: &str) -> Config {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let parsed = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(parsed, &options).await.unwrap()
}

fn kubeconfig(port: u16, user: &str, namespace: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: {user}, user: {{token: {user}}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: {user}, namespace: {namespace}}}}}]\n"
    )
}

/// A namespace of a test's own.
pub struct World {
    pub kubernetes: &'static Kubernetes,
    pub namespace: String,
    pub client: Client,
    dir: tempfile::TempDir,
}

/// Runs a scenario in a namespace of its own.
pub fn world<F: Future<Output = ()>>(scenario: impl FnOnce(World) -> F) {
    let Some(kubernetes) = kubernetes() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { scenario(World::new(kubernetes).await).await });
}

impl World {
    async fn new(kubernetes: &'static Kubernetes) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let client = client(&kubernetes.kubeconfig("admin", &namespace)).await;
        let world = Self { kubernetes, namespace, client, dir: tempfile::tempdir().unwrap() };
        world.kubectl(&["create", "namespace", &world.namespace], "");
        for user in ["operator", "rights"] {
            let (name, user) = (format!("lease-{user}"), format!("--user={user}"));
            world.kubectl(
                &["create", "role", &name, "--verb=get,create,update", "--resource=leases"],
                "",
            );
            world.kubectl(&["create", "rolebinding", &name, &format!("--role={name}"), &user], "");
        }
        world
    }

    /// In the test's namespace; has to succeed.
    pub fn kubectl(&self, args: &[&str], input: &str) -> String {
        let namespace = format!("--namespace={}", self.namespace);
        let (well, said) = self.kubernetes.kubectl(&[&[namespace.as_str()], args].concat(), input);
        assert!(well, "kubectl {args:?}: {said}");
        said
    }

    /// The operator, for this namespace.
    pub fn operator(&self) -> Operator {
        self.operator_as("operator")
    }

    /// The same with the rights of this user.
    pub fn operator_as(&self, user: &str) -> Operator {
        self.operator_with(&self.kubernetes.kubeconfig(user, &self.namespace))
    }

    /// The same with a proxy before the API server.
    pub fn operator_through(&self, proxy: &Proxy) -> Operator {
        let direct = self.kubernetes.kubeconfig("operator", &self.namespace);
        let server = format!("https://127.0.0.1:{}", self.kubernetes.port);
        self.operator_with(&direct.replace(&server, &format!("http://127.0.0.1:{}", proxy.port)))
    }

    fn operator_with(&self, kubeconfig: &str) -> Operator {
        let config = self.dir.path().join("kubeconfig");
        std::fs::write(&config, kubeconfig).unwrap();
        let port = free_port();
        let program = std::env::var("TEST_OPERATOR");
        let program = program.unwrap_or(env!("CARGO_BIN_EXE_gameserver-operator").into());
        let child = Command::new(program)
            .args(["run", "--namespace", &self.namespace, "--listen", &format!("127.0.0.1:{port}")])
            .env_clear()
            .env("KUBECONFIG", &config)
            .stderr(
                std::fs::File::options()
                    .append(true)
                    .create(true)
                    .open(self.dir.path().join("log"))
                    .unwrap(),
            )
            .spawn()
            .unwrap();
        Operator { child, port }
    }

    /// What operators have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn gameservers(&self) -> Api<Gameserver> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Objects of a kind.
    pub fn api(&self, group: &str, kind: &str) -> Api<DynamicObject> {
        let resource = kube::api::ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// Makes a Gameserver over an external database whose Secret is there.
    pub async fn create(&self, name: &str, spec: Value) {
        let secret = json!({
            "metadata": {"name": "db"},
            "stringData": {"url": "postgres://games:secret@db.example/games"},
        });
        let secrets = self.api("", "Secret");
        let secret: DynamicObject = serde_json::from_value(secret).unwrap();
        // An error: another Gameserver of the test has it already.
        let _ = secrets.create(&PostParams::default(), &secret).await;
        let mut whole = json!({
            "image": "gameserver:1",
            "database": {"external": {"secretRef": {"name": "db"}}},
        });
        for (field, value) in spec.as_object().unwrap() {
            whole[field] = value.clone();
        }
        let object = json!({
            "apiVersion": "gameserver.com/v1", "kind": "Gameserver",
            "metadata": {"name": name}, "spec": whole,
        });
        let object: Gameserver = serde_json::from_value(object).unwrap();
        self.gameservers().create(&PostParams::default(), &object).await.unwrap();
    }

    /// Changes a Gameserver's spec.
    pub async fn change(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.gameservers().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits until something is there.
    pub async fn until<T, F: Future<Output = Option<T>>>(
        &self,
        what: &str,
        mut look: impl FnMut() -> F,
    ) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            if began.elapsed() > DEADLINE {
                let state = self.kubectl(&["get", "gsv,pods,jobs", "-o", "yaml"], "");
                panic!("{what}: not within {DEADLINE:?}\n{}\n{state}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for a status.
    pub async fn status(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&GameserverStatus) -> bool,
    ) -> GameserverStatus {
        let api = self.gameservers();
        self.until(what, || async {
            let status = api.get_opt(name).await.unwrap()?.status?;
            holds(&status).then_some(status)
        })
        .await
    }

    /// Waits until pods are as they are to be.
    pub async fn pods_until(&self, what: &str, hold: impl Fn(&[Pod]) -> bool) -> Vec<Pod> {
        let api = self.pods();
        self.until(what, || async {
            let pods = api.list(&ListParams::default()).await.unwrap().items;
            hold(&pods).then_some(pods)
        })
        .await
    }

    /// Does what the job controller would do when all Jobs have run.
    pub async fn finish_job(&self, type_: &str) -> String {
        let jobs = self.api("batch", "Job");
        let job = self
            .until("a Job that runs", || async {
                let all = jobs.list(&ListParams::default()).await.unwrap().items;
                all.into_iter().find(|job| job.data["status"]["conditions"].is_null())
            })
            .await;
        let (name, status) = (job.name_any(), Patch::Merge(finished(type_)));
        jobs.patch_status(&name, &PatchParams::default(), &status).await.unwrap();
        name
    }

    /// Does what the kubelet would do: the pod runs, at this address, and is ready or not.
    pub async fn run_pod(&self, name: &str, ip: &str, ready: bool) {
        let ready = if ready { "True" } else { "False" };
        let status = json!({"status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": ready}],
        }});
        self.pods()
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    /// Does what the kubelet would do when there is no such image.
    pub async fn wait_for_image(&self, name: &str) {
        let waiting = json!({"reason": "ImagePullBackOff", "message": "no such image"});
        let container = json!({
            "name": "gameserver", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": waiting},
        });
        let status =
            Patch::Merge(json!({"status": {"phase": "Pending", "containerStatuses": [container]}}));
        self.pods().patch_status(name, &PatchParams::default(), &status).await.unwrap();
    }

    /// Does so for all pods that don't run yet.
    pub async fn run_all_pods(&self) {
        let pods = self.pods().list(&ListParams::default()).await.unwrap().items;
        for pod in pods.iter().filter(|pod| !is_ready(pod)) {
            self.run_pod(&pod.name_any(), "127.0.0.1", true).await;
        }
    }

    /// Does what the kubelet would do when the containers have ended.
    pub async fn remove_deleted_pods(&self) {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let pods = self.pods().list(&ListParams::default()).await.unwrap().items;
        for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
            let _ = self.pods().delete(&pod.name_any(), &now).await;
        }
    }

    /// Brings a Gameserver up: its Jobs done, its pods ready.
    pub async fn bring_up(&self, name: &str, replicas: i32) {
        self.finish_job("Complete").await;
        let count = usize::try_from(replicas).unwrap();
        self.pods_until("pods", |pods| pods.len() == count).await;
        self.run_all_pods().await;
        self.status(name, "is rolled out", |status| {
            status.ready_replicas == replicas && reason(status, "Progressing") == "Complete"
        })
        .await;
    }
}

/// The status of a Job that has ended so.
pub fn finished(type_: &str) -> Value {
    let now = k8s_openapi::jiff::Timestamp::now().as_second();
    let at = k8s_openapi::jiff::Timestamp::from_second(now).unwrap().to_string();
    json!({"status": {"conditions": [
        {"type": type_, "status": "True", "lastTransitionTime": at},
    ]}})
}

/// Whether a pod takes players.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

/// The image of a pod.
pub fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

/// The reason of a condition.
pub fn reason(status: &GameserverStatus, type_: &str) -> String {
    let known = status.conditions.iter().find(|condition| condition.type_ == type_);
    known.map(|condition| condition.reason.clone()).unwrap_or_default()
}

/// The message of a condition.
pub fn message(status: &GameserverStatus, type_: &str) -> String {
    let known = status.conditions.iter().find(|condition| condition.type_ == type_);
    known.map(|condition| condition.message.clone()).unwrap_or_default()
}

/// An operator that runs.
pub struct Operator {
    child: Child,
    pub port: u16,
}

impl Operator {
    /// A figure of its metrics.
    pub async fn metric(&self, name: &str) -> Option<u64> {
        let text = self.get("/metrics").await?;
        let line = text
            .lines()
            .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// What it answers there, with the status line.
    pub async fn get(&self, path: &str) -> Option<String> {
        let (port, request) = (self.port, format!("GET {path} HTTP/1.0\r\n\r\n"));
        let ask = move || {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.write_all(request.as_bytes()).ok()?;
            std::io::read_to_string(stream).ok()
        };
        tokio::task::spawn_blocking(ask).await.unwrap()
    }

    /// Its memory, and the most that it ever had, in bytes.
    pub fn memory(&self) -> [u64; 2] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        ["VmRSS:", "VmHWM:"].map(|field| {
            let value = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
        })
    }

    /// Tells it to stop, and waits for that.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
