//! What clients of Anthropic's API get.

use super::*;

#[test]
fn modify_params_of_a_deployment_amends_its_requests_and_is_not_sent() {
    let yaml = |params: &str, global: bool| {
        format!(
            "model_list: [{{model_name: c, litellm_params: {{model: anthropic/claude-3-opus-20240229, api_base: 'http://d.test', \
             api_key: k{params}}}}}]\nlitellm_settings: {{modify_params: {global}}}"
        )
    };
    let rows = [
        ("", false, json!({}), 400),
        ("", true, json!({}), 200),
        (", modify_params: true", false, json!({}), 200),
        (", modify_params: false", true, json!({}), 400),
        ("", false, json!({"modify_params": true}), 200),
    ];
    for (params, global, said, status) in rows {
        let mut body = json!({"model": "c", "messages": [{"role": "assistant", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        let story = Rig::new(&yaml(params, global)).chat(body, |_, _| Answer(200, message()));
        assert_eq!(story.status, status, "{params} {global}: {}", story.body);
        assert!(story.bodies.iter().all(|body| body.get("modify_params").is_none()), "{:?}", story.bodies);
    }
    // A request that is not translated has it neither.
    for params in ["", ", modify_params: true"] {
        let mut body = hello("c");
        body.as_object_mut()
            .unwrap()
            .extend(json!({"max_tokens": 5, "modify_params": true}).as_object().unwrap().clone());
        let story = Rig::new(&yaml(params, true)).call("/v1/messages", body, |_, _| Answer(200, message()));
        assert_eq!((story.status, story.bodies[0].get("modify_params")), (200, None));
    }
}
