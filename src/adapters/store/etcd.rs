//! Coordination over etcd.
use super::{
    Batch, Bytes, Clock, Leadership, Member, RecordKey, Records, Seat, Store, StoreError, StoreMetrics, Term,
    async_trait, watch,
};
use crate::config::EtcdConfig;
pub(super) struct EtcdStore;
impl EtcdStore {
    pub(super) async fn open(_: &EtcdConfig, _: Seat, _: Clock, _: StoreMetrics) -> Result<Self, StoreError> {
        Err(StoreError::Unavailable { reason: "not connected".to_owned() })
    }
}
#[async_trait]
impl Store for EtcdStore {
    fn leadership(&self) -> watch::Receiver<Leadership> {
        watch::channel(Leadership::Unknown).1
    }
    async fn members(&self) -> Result<Vec<Member>, StoreError> {
        Ok(vec![])
    }
    async fn load(&self) -> Result<Records, StoreError> {
        Ok(Records::new())
    }
    async fn commit(&self, _: Term, _: Batch) -> Result<(), StoreError> {
        Ok(())
    }
    fn follow(&self, _: RecordKey) -> watch::Receiver<Option<Bytes>> {
        watch::channel(None).1
    }
    async fn resign(&self) {}
}
