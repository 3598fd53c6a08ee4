//! `simple-shuffle`: a random order of a group's deployments, weighted the way LiteLLM weighs them.

use crate::core::{model::deployment::Deployment, random::Random};

/// Deployments in the order they are to be tried: the first is drawn by weight, the next from the rest, and so on, so a
/// retry never meets the deployment that just failed while another is left.
///
/// Weights count when any deployment has one; else, as LiteLLM does it, the first deployment decides what counts (`rpm`, else
/// `tpm`, else all the same). A deployment without that number has 0. If everything counts 0 (LiteLLM fails there) all are the
/// same.
pub fn shuffle(deployments: &[Deployment], healthy: &[usize], random: &mut Random) -> Vec<usize> {
    let mut left = weighed(deployments, healthy);
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let drawn = draw(&left, random);
        order.push(left.swap_remove(drawn).0);
    }
    order
}

/// How likely each is to be drawn first, in parts of 1.
pub fn shares(deployments: &[Deployment], healthy: &[usize]) -> Vec<(usize, f64)> {
    let weighed = weighed(deployments, healthy);
    let total: f64 = weighed.iter().map(|(_, weight)| weight).sum();
    let count = weighed.len() as f64;
    weighed.iter().map(|&(at, weight)| (at, if total > 0.0 { weight / total } else { 1.0 / count })).collect()
}

/// Each with what it counts.
fn weighed(deployments: &[Deployment], healthy: &[usize]) -> Vec<(usize, f64)> {
    let has_weight = healthy.iter().filter_map(|&at| deployments.get(at)).any(|d| d.weight.is_some());
    let measure: fn(&Deployment) -> Option<f64> = match healthy.first().and_then(|&at| deployments.get(at)) {
        _ if has_weight => |d| d.weight,
        Some(first) if first.rpm.is_some() => |d| d.rpm.map(|n| n as f64),
        Some(first) if first.tpm.is_some() => |d| d.tpm.map(|n| n as f64),
        _ => |_| None,
    };
    let weight = |at: usize| deployments.get(at).and_then(measure).unwrap_or(0.0).max(0.0);
    healthy.iter().map(|&at| (at, weight(at))).collect()
}

/// Puts a list into any order, all orders alike (Fisher and Yates).
pub fn mix<T>(list: &mut [T], random: &mut Random) {
    for end in (1..list.len()).rev() {
        let at = (random.fraction() * (end + 1) as f64) as usize;
        list.swap(at.min(end), end);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config;

    /// How often, of 100,000 draws, each deployment comes first, in percent.
    fn shares(params: &[&str], healthy: &[usize]) -> Vec<f64> {
        let mut yaml = "model_list:\n".to_owned();
        for (at, params) in params.iter().enumerate() {
            yaml += &format!(
                "  - {{model_name: g, litellm_params: {{model: openai/m{at}, api_key: k{params}}}}}\n"
            );
        }
        let config = config::load(&yaml, &|_| None, &|_| None).unwrap().config;
        let mut random = Random::new(42);
        let mut firsts = vec![0_u32; params.len()];
        for _ in 0..100_000 {
            let order = shuffle(&config.deployments, healthy, &mut random);
            firsts[order[0]] += 1;
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, healthy, "everybody has a turn");
        }
        firsts.iter().map(|&count| f64::from(count) / 1_000.0).collect()
    }

    #[test]
    fn the_first_is_drawn_as_litellm_draws() {
        let all = &[0, 1, 2][..];
        let rows = [
            ("uniform", ["", "", ""], all, [33.3, 33.3, 33.3]),
            ("weight", [", weight: 5", ", weight: 3", ", weight: 2"], all, [50.0, 30.0, 20.0]),
            ("weight, missing is 0", [", weight: 0.9", "", ", weight: 0.1"], all, [90.0, 0.0, 10.0]),
            ("rpm", [", rpm: 900", ", rpm: 90", ", rpm: 10"], all, [90.0, 9.0, 1.0]),
            ("tpm", [", tpm: 100000", ", tpm: 300000", ""], all, [25.0, 75.0, 0.0]),
            (
                "weight before rpm",
                [", weight: 1, rpm: 1", ", weight: 1, rpm: 99", ""],
                all,
                [50.0, 50.0, 0.0],
            ),
            ("one weight is enough", ["", ", weight: 9", ", rpm: 9"], all, [0.0, 100.0, 0.0]),
            ("a weight behind rpm", [", rpm: 9", ", weight: 1", ", weight: 3"], all, [0.0, 25.0, 75.0]),
            ("a weight of a resting one does not count", [", weight: 9", "", ""], &[1, 2], [0.0, 50.0, 50.0]),
            (
                "the first one decides between the others",
                ["", ", tpm: 9", ", rpm: 9"],
                all,
                [33.3, 33.3, 33.3],
            ),
            ("all zero is uniform", [", weight: 0", ", weight: 0", ", weight: 0"], all, [33.3, 33.3, 33.3]),
            ("the weights of the healthy", ["", ", weight: 1", ", weight: 3"], &[1, 2], [0.0, 25.0, 75.0]),
        ];
        for (name, params, healthy, expected) in rows {
            for (share, expected) in shares(&params, healthy).into_iter().zip(expected) {
                assert!((share - expected).abs() < 2.0, "{name}: {share} is not {expected}");
            }
        }
    }

    #[test]
    fn nothing_to_draw_from() {
        assert!(shuffle(&[], &[], &mut Random::new(1)).is_empty());
    }
}
