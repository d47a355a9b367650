package terraform

import (
	"github.com/zclconf/go-cty/cty"

	"cairn.dev/cairn/internal/code"
)

// A sink finds the images of one instance of a resource.
type sink func(*finder)

// sinkTypes returns the types of resources and data sources that may hold
// images, the user's own among them: only those are evaluated.
func sinkTypes(o code.Options) map[string]bool {
	types := make(map[string]bool, len(managedSinks)+len(dataSinks)+len(o.Sinks))
	for t := range managedSinks {
		types[t] = true
	}
	for t := range dataSinks {
		types[t] = true
	}
	for _, s := range o.Sinks {
		types[s.Type] = true
	}
	return types
}

// sinks returns the images of one instance, in the order of the table.
func sinks(r Resource, o code.Options) []code.Image {
	b := &finder{resource: r, root: nodeOf(r.Body, nil)}
	table := managedSinks
	if r.Mode == Data {
		table = dataSinks
	}
	if s := table[r.Type]; s != nil {
		s(b)
	}
	for _, s := range o.Sinks {
		if s.Type == r.Type && !b.has(s.Path) {
			at(s.Path)(b)
		}
	}
	return b.images
}

// A finder is an instance that sinks look at, and the images they found.
type finder struct {
	resource Resource
	root     *code.Node
	images   []code.Image
}

// A spot is where a node of a body comes from. It is the Origin of nodes. The
// nodes of a text that was decoded (YAML in a string) have the text's spot,
// and where in the text they are.
type spot struct {
	value cty.Value // with its marks and those of all that it is within
	path  cty.Path
	text  string // that the node was decoded from; "" if it was not
	line  int    // in text, from 1
}

// origins are those of the value. Of a text that stands in a file as it was
// decoded, what the node says stands on the node's line.
func (s spot) origins(n *code.Node) []Origin {
	list := TraceOf(s.value).Origins
	for i, o := range list {
		if s.line > 0 && o.Lined && o.Text == s.text && n.Text != "" {
			list[i].Text, list[i].Lined = n.Text, false
			if s.line > 1 {
				list[i].Place = code.Place{File: o.Place.File, Line: o.Place.Line + s.line - 1}
			}
		}
	}
	return list
}

// both is several sinks for one type.
func both(list ...sink) sink {
	return func(b *finder) {
		for _, s := range list {
			s(b)
		}
	}
}

// at is a sink for attributes that hold whole references. A path names
// attributes and blocks; lists are passed through. Of a name that ends in []
// the index is always shown, of others only beyond the first: so an image
// keeps its name when another is added behind it.
func at(paths ...string) sink {
	return func(b *finder) {
		for _, p := range paths {
			b.follow(p, b.whole)
		}
	}
}

// pods is a sink for pod specs as the kubernetes provider spells them.
func pods(spec string) sink {
	return at(spec+".container[].image", spec+".init_container[].image", spec+".ephemeral_container[].image", spec+".volume[].image.reference")
}

// containers is a sink for the lists of containers of other platforms.
func containers(parent string) sink {
	return at(parent+".container[].image", parent+".init_container[].image", parent+".containers[].image")
}

// managedSinks says for each type of resource where its images are. The
// schemas are the providers' own, as published with their documentation.
var managedSinks = map[string]sink{
	"kubernetes_pod":                       pods("spec"),
	"kubernetes_pod_v1":                    pods("spec"),
	"kubernetes_deployment":                pods("spec.template.spec"),
	"kubernetes_deployment_v1":             pods("spec.template.spec"),
	"kubernetes_daemonset":                 pods("spec.template.spec"),
	"kubernetes_daemon_set_v1":             pods("spec.template.spec"),
	"kubernetes_stateful_set":              pods("spec.template.spec"),
	"kubernetes_stateful_set_v1":           pods("spec.template.spec"),
	"kubernetes_replication_controller":    pods("spec.template.spec"),
	"kubernetes_replication_controller_v1": pods("spec.template.spec"),
	"kubernetes_job":                       pods("spec.template.spec"),
	"kubernetes_job_v1":                    pods("spec.template.spec"),
	"kubernetes_cron_job":                  pods("spec.job_template.spec.template.spec"),
	"kubernetes_cron_job_v1":               pods("spec.job_template.spec.template.spec"),
	"kubernetes_manifest":                  object("manifest"),

	"kubectl_manifest":                           yaml("yaml_body", code.KubernetesImages),
	"kustomization_resource":                     yaml("manifest", code.KubernetesImages),
	"k8s_manifest":                               yaml("content", code.KubernetesImages),
	"helm_release":                               helm,
	"rancher2_app_v2":                            yaml("values", code.HelmImages),
	"argocd_application":                         argocd,
	"portainer_stack":                            yaml("stack_file_content", composeImages),
	"docker_image":                               at("name"),
	"docker_container":                           at("image"),
	"docker_service":                             at("task_spec.container_spec.image"),
	"nomad_job":                                  nomad,
	"fly_machine":                                at("image"),
	"koyeb_service":                              at("definition.docker.image"),
	"scaleway_container":                         at("registry_image"),
	"cloudfoundry_app":                           at("docker_image"),
	"digitalocean_app":                           digitalocean,
	"ibm_code_engine_app":                        at("image_reference"),
	"ibm_code_engine_job":                        at("image_reference"),
	"yandex_serverless_container":                at("image.url"),
	"railway_service":                            at("source_image"),
	"oci_functions_function":                     at("image"),
	"alicloud_eci_container_group":               at("containers[].image", "init_containers[].image"),
	"render_web_service":                         at("runtime_source.image.image_url"),
	"oci_container_instances_container_instance": at("containers[].image_url"),

	"aws_ecs_task_definition":         yaml("container_definitions", listImages),
	"aws_ecs_express_gateway_service": at("primary_container.image"),
	"aws_batch_job_definition": both(yaml("container_properties", wholeImage), yaml("node_properties", batchNodes),
		yaml("ecs_properties", code.HelmImages)),
	"aws_lambda_function":                                at("image_uri"),
	"aws_apprunner_service":                              at("source_configuration.image_repository.image_identifier"),
	"aws_sagemaker_model":                                at("primary_container.image", "container[].image"),
	"aws_codebuild_project":                              at("environment.image"),
	"aws_lightsail_container_service_deployment_version": at("container[].image"),
	"aws_emrserverless_application":                      at("image_configuration.image_uri"),

	"google_cloud_run_service":                at("template.spec.containers[].image"),
	"google_cloud_run_v2_service":             at("template.containers[].image"),
	"google_cloud_run_v2_job":                 at("template.template.containers[].image"),
	"google_cloud_run_v2_worker_pool":         at("template.containers[].image"),
	"google_cloudbuild_trigger":               at("build.step[].name"),
	"google_workstations_workstation_config":  at("container.image"),
	"google_app_engine_flexible_app_version":  at("deployment.container.image"),
	"google_dataproc_batch":                   at("runtime_config.container_image"),
	"google_compute_instance":                 declaration,
	"google_compute_instance_template":        declaration,
	"google_compute_region_instance_template": declaration,

	"azurerm_container_app":                     containers("template"),
	"azurerm_container_app_job":                 containers("template"),
	"azurerm_container_group":                   at("container[].image", "init_container[].image"),
	"azurerm_linux_web_app":                     webApp,
	"azurerm_linux_web_app_slot":                webApp,
	"azurerm_windows_web_app":                   webApp,
	"azurerm_windows_web_app_slot":              webApp,
	"azurerm_linux_function_app":                webApp,
	"azurerm_linux_function_app_slot":           webApp,
	"azurerm_app_service":                       webApp,
	"azurerm_spring_cloud_container_deployment": at("image"),
	"azurerm_batch_pool":                        at("container_configuration.container_image_names[]"),
	"azapi_resource":                            azapi,
	"azapi_update_resource":                     azapi,
}

// dataSinks is the same for data sources.
var dataSinks = map[string]sink{
	"docker_registry_image":  at("name"),
	"docker_image":           at("name"),
	"helm_template":          helm,
	"kubectl_file_documents": yaml("content", code.KubernetesImages),
}
