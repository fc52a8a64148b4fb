//! The owners of a fleet's pods, as the API server is asked for them.

use serde_json::json;

use crate::{
    plane::{self, User, until},
    stage::Stage,
};

#[tokio::test]
async fn several_owners_of_a_kind_are_read_by_one_list_and_a_single_one_by_a_get() {
    let plane = plane::shared().await;
    let (stage, proxy) = Stage::proxied(&plane, "owners").await;
    stage.has_condition("Ready", &["True"]).await;
    proxy.forget();
    stage.withhold(&stage.pods[0]).await;
    let count = proxy.count();
    assert_eq!(count.get("list", "deployments"), 0, "{count}");
    assert!(count.get("get", "deployments") > 0, "{count}");
    stage.recover().await;

    let labels = json!({"app": "web", "set": "second", "kubervisor/traffic": "yes"});
    let template =
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}});
    let second = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "second"},
        "spec": {"replicas": 4, "selector": {"matchLabels": {"set": "second"}}, "template": template},
    });
    let done = plane.kubectl(User::Admin, &["apply", "-n", &stage.namespace, "-f", "-"], &second.to_string());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    until("both are in the fleet", || async {
        let resource = stage.shop.resource().await.ok()?;
        (stage.shop.endpoints().await.ok()?.len() == 8 && resource["status"]["floor"] == 4).then_some(())
    })
    .await;
    proxy.forget();
    stage.withhold(&stage.pods[0]).await;
    let count = proxy.count();
    assert_eq!(count.get("get", "deployments"), 0, "{count}");
    assert_eq!(count.get("list", "deployments"), count.get("list", "horizontalpodautoscalers"), "{count}");
    stage.recover().await;
}
