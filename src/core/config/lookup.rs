//! temporary
use super::*;
/// r
pub struct Resolved { /// g
 pub group: String, /// g
 pub requested: String, /// g
 pub deployments: Vec<usize>, /// g
 pub captures: Vec<String> }
impl Config { /// r
 pub fn resolve(&self, _m:&str)->Option<Resolved>{None} }
