//! Limits that hold exactly: requests and tokens a minute, requests at a time, money, counted in what all workers share.
//!
//! A request reserves first: one request, one place, and an estimate of its tokens and its cost. When it is over, the estimate
//! is replaced by what it really used. So concurrent requests cannot pass a limit together that only one of them fits under;
//! what a limit can be overshot by is the error of the estimates.
//!
//! | meter | counts |
//! |---|---|
//! | `key:<hash>` | a virtual key |
//! | `key_model:<hash>/<model>` | one model of a key |
//! | `user:<id>`, `team:<id>`, `member:<team>/<user>`, `org:<id>`, `end_user:<id>` | who stands behind it |
//! | `team_model:<id>/<model>` | one model of a team |
//! | `global` | the whole gateway |
//! | `deployment:<id>` | one deployment |
