"""Whole packages for property tests, made from the model's own types."""

from __future__ import annotations

from hypothesis import strategies as st

from bema.packages.opackage import (
    AccessModifier,
    ConsistencyModel,
    DeploymentStatusSummary,
    FunctionBinding,
    FunctionDeploymentSpec,
    FunctionType,
    KeySpecification,
    NfrRequirements,
    OClass,
    OClassDeployment,
    OdgmDataSpec,
    OFunction,
    OPackage,
    PackageMetadata,
    ProvisionConfig,
    QosRequirement,
    StateSpecification,
    TelemetryConfig,
)

words = st.one_of(
    st.sampled_from(
        ["null", "yes", "1.0", "007", "a: b", "# c", "- d", "", " ", "x ", "{", "'", '"', "!!int", "<<", "1e3"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
texts = st.lists(words, max_size=3)
maps = st.dictionaries(words, words, max_size=3)
u32 = st.integers(0, 2**32 - 1)
shares = st.floats(allow_nan=False, allow_infinity=False)


def maybe(of: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | of


provisions = st.builds(
    ProvisionConfig,
    container_image=maybe(words),
    wasm_module_url=maybe(words),
    port=maybe(st.integers(0, 65535)),
    max_concurrency=u32,
    need_http2=st.booleans(),
    cpu_request=maybe(words),
    memory_limit=maybe(words),
    min_scale=maybe(u32),
    max_scale=maybe(u32),
)
classes = st.builds(
    OClass,
    key=words,
    description=maybe(words),
    state_spec=maybe(
        st.builds(
            StateSpecification,
            key_specs=st.lists(st.builds(KeySpecification, name=words, key_type=words), max_size=2),
            default_provider=words,
            consistency_model=st.sampled_from(ConsistencyModel),
            persistent=st.booleans(),
            serialization_format=words,
        )
    ),
    function_bindings=st.lists(
        st.builds(
            FunctionBinding,
            name=words,
            function_key=words,
            access_modifier=st.sampled_from(AccessModifier),
            stateless=st.booleans(),
            parameters=texts,
        ),
        max_size=3,
    ),
)
functions = st.builds(
    OFunction,
    key=words,
    function_type=st.sampled_from(FunctionType),
    description=maybe(words),
    provision_config=maybe(provisions),
    config=maps,
)
deployments = st.builds(
    OClassDeployment,
    key=words,
    package_name=words,
    class_key=words,
    target_envs=texts,
    nfr_requirements=st.builds(NfrRequirements, min_throughput_rps=maybe(u32), availability=maybe(shares)),
    env_templates=maps,
    functions=st.lists(
        st.builds(
            FunctionDeploymentSpec,
            function_key=words,
            qos_requirement=maybe(st.builds(QosRequirement, availability=shares, throughput=u32)),
            provision_config=maybe(provisions),
        ),
        max_size=2,
    ),
    odgm=maybe(
        st.builds(
            OdgmDataSpec,
            collections=texts,
            env_node_ids=st.dictionaries(words, st.lists(st.integers(0, 2**64 - 1), max_size=2), max_size=2),
        )
    ),
    telemetry=maybe(st.builds(TelemetryConfig, enabled=maybe(st.booleans()), sampling_rate=maybe(shares))),
    status=maybe(st.builds(DeploymentStatusSummary, replication_factor=u32, selected_envs=texts)),
)
packages = st.builds(
    OPackage,
    name=words,
    version=maybe(words),
    metadata=st.builds(
        PackageMetadata,
        author=maybe(words),
        tags=texts,
        created_at=maybe(st.sampled_from(["2026-03-01T10:00:00Z", "2026-03-01T10:00:00.125Z"])),
    ),
    classes=st.lists(classes, max_size=3),
    functions=st.lists(functions, max_size=3),
    dependencies=texts,
    deployments=st.lists(deployments, max_size=2),
)
