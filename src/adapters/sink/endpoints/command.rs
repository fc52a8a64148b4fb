//! Runs the command after a write, such as a reload: one run at a time, at least [`RUNS_APART`] apart, and always one after the
//! last write.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    adapters::process::{self, Ended, Job},
    alarms::Alarms,
    config::{CommandLine, EndpointsConfig, RunAs},
    core_task::until_stopped,
    decide::alarm_reason::AlarmReason,
};

/// Shortest time between the starts of two runs; the later one covers all writes in between.
pub const RUNS_APART: Duration = Duration::from_millis(500);
/// A command that takes longer is killed with its children.
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_AT_MOST: Duration = Duration::from_secs(60);

/// Handle of the task; dropping it kills a run.
pub struct AfterWrite {
    trigger: Arc<Notify>,
    last: CancellationToken,
    abandon: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl AfterWrite {
    /// Starts the task; without a command, triggers have no effect.
    pub fn start(config: &EndpointsConfig, alarms: &Alarms) -> Self {
        let trigger = Arc::new(Notify::new());
        let (last, abandon) = (CancellationToken::new(), CancellationToken::new());
        let task = config.command.clone().map(|command| {
            let runner = CommandTask {
                command,
                user: config.user.clone(),
                alarms: alarms.clone(),
                abandon: abandon.clone(),
            };
            let serving = runner.serve(trigger.clone(), last.clone());
            tokio::spawn(until_stopped(alarms, "the endpoints command", &last, serving))
        });
        Self { trigger, last, abandon, task }
    }

    /// Triggers a run; triggers before it starts count as one.
    pub fn trigger(&self) -> Arc<Notify> {
        self.trigger.clone()
    }

    /// Finishes a run that is due or running, then stops the task.
    pub async fn finish(mut self) {
        self.last.cancel();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Drop for AfterWrite {
    fn drop(&mut self) {
        self.last.cancel();
        self.abandon.cancel();
    }
}

struct CommandTask {
    command: CommandLine,
    user: RunAs,
    alarms: Alarms,
    abandon: CancellationToken,
}

impl CommandTask {
    async fn serve(self, trigger: Arc<Notify>, last: CancellationToken) {
        let mut retry = None;
        loop {
            tokio::select! {
                biased;
                () = trigger.notified() => {}
                () = pause(retry) => {}
                () = last.cancelled() => return,
            }
            let began = Instant::now();
            retry = match self.run().await {
                Ok(()) => {
                    self.alarms.clear(AlarmReason::EndpointsCommand);
                    None
                }
                Err(reason) => {
                    self.alarms.raise(
                        AlarmReason::EndpointsCommand,
                        format!("KUBERVISOR_ENDPOINTS_COMMAND {reason}; what reads the endpoints file may act on an older one; trying again"),
                    );
                    Some(retry.map_or(RUNS_APART, |wait: Duration| (wait * 2).min(RETRY_AT_MOST)))
                }
            };
            last.run_until_cancelled(sleep_until(began + RUNS_APART)).await;
        }
    }

    async fn run(&self) -> Result<(), String> {
        let job = Job {
            timeout: TIMEOUT,
            stdout_limit: 4096,
            user: self.user.clone(),
            keeps_survivors: true,
            ..Job::new("endpoints", self.command.clone())
        };
        let finished = process::run(job, self.abandon.clone())
            .await
            .map_err(|error| format!("did not start: {error}"))?;
        match finished.ended {
            Ended::Exited(0) => Ok(()),
            Ended::Exited(code) => Err(format!("ended with exit code {code} ({})", finished.complaint)),
            Ended::Signalled(signal) => Err(format!("was ended by signal {signal}")),
            Ended::TimedOut => Err(format!("was killed: it took longer than {} s", TIMEOUT.as_secs())),
            Ended::Cancelled => Err("was killed: this process ends".to_owned()),
        }
    }
}

async fn pause(wait: Option<Duration>) {
    match wait {
        Some(wait) => sleep(wait).await,
        None => std::future::pending().await,
    }
}
