//! What is in `deploy/` is what an API server takes.

use std::path::Path;

use crate::kubernetes::kubernetes;

fn path(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file).to_str().unwrap().to_owned()
}

#[test]
fn the_api_server_takes_everything() {
    let Some(kubernetes) = kubernetes() else { return };
    for (flag, file) in [
        ("-k", ""),
        ("-k", "one-namespace"),
        ("-k", "plain"),
        ("-f", "samples/smallest.yaml"),
        ("-f", "samples/production.yaml"),
        ("-f", "samples/plugin.yaml"),
        ("-f", "samples/external-database.yaml"),
    ] {
        let path = path(file);
        // The definition has newer words than the oldest server that is tested knows.
        let args = ["apply", "--dry-run=server", "--validate=false", flag, &path];
        let (well, said) = kubernetes.kubectl(&args, "");
        assert!(well, "{file}: {said}");
    }
}

#[test]
fn the_bundle_is_what_is_deployed() {
    let read = |file: &str| std::fs::read_to_string(path(file)).unwrap();
    assert_eq!(read("bundle/manifests/gameservers.gameserver.com.crd.yaml"), read("crd.yaml"));
    let parse = |text: &str| -> serde_json::Value { serde_saphyr::from_str(text).unwrap() };
    let csv = parse(&read("bundle/manifests/gameserver-operator.clusterserviceversion.yaml"));
    let install = &csv["spec"]["install"]["spec"];
    let part = |file: &str, kind: &str| {
        let text = read(file);
        let mark = format!("kind: {kind}\n");
        parse(text.split("---\n").find(|part| part.contains(&mark)).unwrap())
    };
    let (cluster, namespaced) = (&install["clusterPermissions"][0], &install["permissions"][0]);
    assert_eq!(cluster["rules"], part("operator/rbac.yaml", "ClusterRole")["rules"]);
    assert_eq!(namespaced["rules"], part("operator/rbac.yaml", "Role")["rules"]);
    let deployment = part("operator/operator.yaml", "Deployment");
    let bundled = &install["deployments"][0]["spec"];
    assert_eq!(
        bundled["template"]["spec"]["containers"][0]["args"],
        deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    );
    let version = format!("gameserver-operator.v{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(csv["metadata"]["name"], version.as_str());
    let annotations = parse(&read("bundle/metadata/annotations.yaml"));
    let media = "operators.operatorframework.io.bundle.mediatype.v1";
    assert_eq!(annotations["annotations"][media], "registry+v1");
}
