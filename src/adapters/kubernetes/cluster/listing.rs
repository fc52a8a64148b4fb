//! Which pods the EndpointSlices name: the load balancers follow the slices, not the labels.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use kube::api::ListParams;

use super::{
    super::objects::{Kind, PodRecord, SERVICE_NAME, ServiceRecord, SliceRecord},
    Cluster, ListError,
    state::Origin,
};
use crate::decide::fleet::Uid;

/// The ready endpoints of one Service.
#[derive(Clone, Debug, Default)]
pub struct ReadyEndpoints {
    pods: HashSet<Uid>,
    addresses: HashSet<IpAddr>,
}

impl ReadyEndpoints {
    fn of<'a>(
        service: Option<&ServiceRecord>,
        slices: impl IntoIterator<Item = &'a Arc<SliceRecord>>,
    ) -> Self {
        let headless = service.is_some_and(|service| !service.has_ports);
        let mut all = Self::default();
        for slice in slices.into_iter().filter(|slice| slice.has_ports || headless) {
            all.pods.extend(slice.ready.iter().cloned());
            all.addresses.extend(&slice.addresses);
        }
        all
    }

    /// Whether a slice names the pod: by its UID, or by an address that it shares with no other pod.
    pub fn lists(&self, pod: &PodRecord) -> bool {
        let by_address =
            || !pod.host_network && pod.addresses().any(|address| self.addresses.contains(&address));
        self.pods.contains(&pod.uid) || by_address()
    }
}

impl Cluster {
    /// The ready endpoints of the Service in the cached slices.
    pub fn ready_endpoints(&self, namespace: &str, service: &str) -> ReadyEndpoints {
        ReadyEndpoints::of(self.service(namespace, service).as_deref(), &self.slices(namespace, service))
    }

    /// The cached slices of a Service.
    pub fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<SliceRecord>> {
        let state = self.shared.read();
        state.slices.of(namespace).filter(|slice| *slice.service == *service).cloned().collect()
    }

    /// The slices of any Service that show one of `pods` ready, by its UID or by its address.
    pub fn slices_naming(
        &self,
        namespace: &str,
        pods: &[Arc<PodRecord>],
    ) -> BTreeMap<Uid, Vec<Arc<SliceRecord>>> {
        let mut found: BTreeMap<Uid, Vec<Arc<SliceRecord>>> = BTreeMap::new();
        if pods.is_empty() {
            return found;
        }
        let by_uid: HashSet<&Uid> = pods.iter().map(|pod| &pod.uid).collect();
        let by_address: HashMap<IpAddr, &Uid> =
            pods.iter().flat_map(|pod| pod.addresses().map(|address| (address, &pod.uid))).collect();
        for slice in self.shared.read().slices.of(namespace) {
            let named = slice.ready.iter().filter_map(|uid| by_uid.get(uid));
            let addressed = slice.addresses.iter().filter_map(|address| by_address.get(address));
            for uid in named.chain(addressed) {
                found.entry((*uid).clone()).or_default().push(Arc::clone(slice));
            }
        }
        found
    }

    /// Lists the slices of a Service by a quorum read, and updates the cache with them.
    ///
    /// # Errors
    /// When a page is missing, or the list is older than what was seen before.
    pub async fn list_endpoints(&self, namespace: &str, service: &str) -> Result<ReadyEndpoints, ListError> {
        let rewinds = self.rewinds();
        let parameters = ListParams::default().labels(&format!("{SERVICE_NAME}={service}"));
        let (slices, _) =
            self.shared.list::<SliceRecord>(Kind::EndpointSlices, Some(namespace), parameters).await?;
        let slices: Vec<Arc<SliceRecord>> = slices.into_iter().map(Arc::new).collect();
        self.shared.write(|state| {
            if state.rewinds == rewinds {
                let all = slices.iter().map(|slice| SliceRecord::clone(slice));
                all.for_each(|slice| state.put(Kind::EndpointSlices, slice, Origin::Answer));
            }
        });
        Ok(ReadyEndpoints::of(self.service(namespace, service).as_deref(), &slices))
    }
}
