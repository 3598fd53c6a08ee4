//! The end: first the load balancer is told, then nobody new is let in, then requests in flight finish, then the last usage
//! reaches the ledger.

use std::{
    process::Child,
    thread,
    time::{Duration, Instant},
};

use super::{END_LIMIT, Instance, TICK, exited};
use crate::control::{Failure, complain, flush, log, process::end};

/// How long the last usage may take to reach the ledger at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// The same, when somebody does not want to wait.
const HURRIED_FLUSH_LIMIT: Duration = Duration::from_secs(1);

impl Instance<'_> {
    /// Fails readiness, and after `--drain_delay` takes no new connections, lets requests in flight end, then ends Envoy. A
    /// second signal cuts them off.
    pub(super) fn drain(&mut self, mut envoy: Child) -> Result<(), Failure> {
        self.signals.stopping();
        let _ = self.admin.fail_health_checks();
        self.stay(&mut envoy)?;
        let _ = self.admin.stop_listening();
        let cut_off = self.let_requests_end(&mut envoy)?;
        self.follower.end();
        if cut_off.is_some() {
            self.signals.stop_hard();
            self.flush(HURRIED_FLUSH_LIMIT);
        } else {
            self.flush(FLUSH_LIMIT);
        }
        let _ = self.admin.quit();
        end(&mut envoy, END_LIMIT);
        if let Some(mut keeper) = self.keeper.take() {
            keeper.end();
        }
        match cut_off {
            Some(active) => Err(Failure::running(format!("ended at once, {} cut off", requests(active)))),
            None => {
                log::info("ended");
                Ok(())
            }
        }
    }

    /// Goes on taking connections for as long as a load balancer needs to notice that readiness fails.
    fn stay(&mut self, envoy: &mut Child) -> Result<(), Failure> {
        let delay = self.serve.drain_delay();
        if delay.is_zero() {
            return Ok(());
        }
        log::info(&format!(
            "stopping: /health/readiness fails, requests are taken for {} s more (--drain_delay)",
            delay.as_secs_f64()
        ));
        let begun = Instant::now();
        while begun.elapsed() < delay && !self.signals.must_stop() && exited(envoy)?.is_none() {
            self.keep();
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Waits for requests in flight; how many are cut off, when somebody or the time-out wants it so.
    fn let_requests_end(&mut self, envoy: &mut Child) -> Result<Option<u64>, Failure> {
        let (begun, limit) = (Instant::now(), self.served.drain);
        let (mut idle, mut told) = (0, false);
        while exited(envoy)?.is_none() {
            let active = self.active();
            idle = if active > 0 { 0 } else { idle + 1 };
            if idle >= 2 {
                break;
            }
            if active > 0 && !std::mem::replace(&mut told, true) {
                log::info(&format!(
                    "stopping: waiting for {} in flight, {} s at most (tollgate_settings.drain_timeout); a second \
                     Ctrl-C or SIGTERM ends at once",
                    requests(active),
                    limit.as_secs_f64()
                ));
            }
            if active > 0 && self.signals.must_stop() {
                return Ok(Some(active));
            }
            if begun.elapsed() >= limit {
                complain(&format!("{} cut off: drain_timeout is over", requests(active)));
                break;
            }
            self.keep();
            thread::sleep(TICK);
        }
        Ok(None)
    }

    fn active(&self) -> u64 {
        flush::active(&self.admin)
    }

    /// Opens log files again, under their names, after they were moved away.
    pub(super) fn reopen_logs(&self) {
        self.served.make_log(self.state.folder(), self.umask);
        match self.admin.reopen_logs() {
            Ok(()) => log::info("log files opened again"),
            Err(error) => complain(&format!("log files could not be opened again: {error}")),
        }
    }

    /// Waits until the ledger has all usage, as far as it can be reached.
    fn flush(&mut self, limit: Duration) {
        let interval = self.setup.ledger.as_ref().map_or(0, |ledger| ledger.interval_ms);
        let keeper = &mut self.keeper;
        let lost = flush::flush(&self.admin, limit + Duration::from_millis(interval), &mut || {
            if let Some(keeper) = keeper {
                keeper.look();
            }
        });
        if lost > 0 {
            complain(&format!("the ledger was not reached: usage of the last {lost} calls is lost"));
        }
    }
}

fn requests(count: u64) -> String {
    format!("{count} request{}", if count == 1 { "" } else { "s" })
}
