//! `simple-shuffle`: a random order of a group's deployments, weighted the way LiteLLM weighs them.

use crate::core::{config::Deployment, random::Random};

/// Deployments in the order they are to be tried: the first is drawn by weight, the next from the rest, and so on, so a
/// retry never meets the deployment that just failed while another is left.
///
/// LiteLLM looks at the first deployment only to decide what counts (`weight`, else `rpm`, else `tpm`, else all the same);
/// where the others lack it they count 0. If everything counts 0 (LiteLLM fails there) all are the same.
pub fn shuffle(deployments: &[Deployment], healthy: &[usize], random: &mut Random) -> Vec<usize> {
    let measure: fn(&Deployment) -> Option<f64> = match healthy.first().and_then(|&at| deployments.get(at)) {
        Some(first) if first.weight.is_some() => |d| d.weight,
        Some(first) if first.rpm.is_some() => |d| d.rpm.map(|n| n as f64),
        Some(first) if first.tpm.is_some() => |d| d.tpm.map(|n| n as f64),
        _ => |_| None,
    };
    let mut left: Vec<(usize, f64)> = healthy
        .iter()
        .map(|&at| (at, deployments.get(at).and_then(measure).unwrap_or(0.0).max(0.0)))
        .collect();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let drawn = draw(&left, random);
        order.push(left.swap_remove(drawn).0);
    }
    order
}

/// The index of one entry, drawn by weight; uniformly when no weight is above zero.
fn draw(left: &[(usize, f64)], random: &mut Random) -> usize {
    let total: f64 = left.iter().map(|(_, weight)| weight).sum();
    let last = left.len().saturating_sub(1);
    if total <= 0.0 {
        return ((random.fraction() * left.len() as f64) as usize).min(last);
    }
    let mut point = random.fraction() * total;
    for (at, (_, weight)) in left.iter().enumerate() {
        if point < *weight {
            return at;
        }
        point -= weight;
    }
    last
}
