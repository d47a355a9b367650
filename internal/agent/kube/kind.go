package kube

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// A kind is what is watched of one resource.
type kind struct {
	name     string // of its objects' kind
	resource string
	version  schema.GroupVersion
	list     func() runtime.Object
	client   rest.Interface
	codec    runtime.ParameterCodec

	// Guarded by Cluster.mu.
	synced bool          // a whole list was read
	live   bool          // a watch is open
	lost   time.Duration // when it ended, on the monotonic clock
	err    error         // of the last attempt
}

// Kinds are the resources that are listed and watched, by API group: what the
// agent's role must allow.
func Kinds() map[string][]string {
	out := map[string][]string{}
	for _, k := range kinds() {
		out[k.version.Group] = append(out[k.version.Group], k.resource)
	}
	return out
}

func kinds() []*kind {
	core, apps, batch := corev1.SchemeGroupVersion, appsv1.SchemeGroupVersion, batchv1.SchemeGroupVersion
	return []*kind{
		// Owners before pods: whoever they belong to is known when they come.
		{name: "Deployment", resource: "deployments", version: apps, list: func() runtime.Object { return &appsv1.DeploymentList{} }},
		{name: "ReplicaSet", resource: "replicasets", version: apps, list: func() runtime.Object { return &appsv1.ReplicaSetList{} }},
		{name: "StatefulSet", resource: "statefulsets", version: apps, list: func() runtime.Object { return &appsv1.StatefulSetList{} }},
		{name: "DaemonSet", resource: "daemonsets", version: apps, list: func() runtime.Object { return &appsv1.DaemonSetList{} }},
		{name: "ControllerRevision", resource: "controllerrevisions", version: apps, list: func() runtime.Object { return &appsv1.ControllerRevisionList{} }},
		{name: "CronJob", resource: "cronjobs", version: batch, list: func() runtime.Object { return &batchv1.CronJobList{} }},
		{name: "Job", resource: "jobs", version: batch, list: func() runtime.Object { return &batchv1.JobList{} }},
		{name: "ReplicationController", resource: "replicationcontrollers", version: core, list: func() runtime.Object { return &corev1.ReplicationControllerList{} }},
		{name: "PodTemplate", resource: "podtemplates", version: core, list: func() runtime.Object { return &corev1.PodTemplateList{} }},
		{name: "Node", resource: "nodes", version: core, list: func() runtime.Object { return &corev1.NodeList{} }},
		{name: "Pod", resource: "pods", version: core, list: func() runtime.Object { return &corev1.PodList{} }},
	}
}

// connect makes the clients. They speak protobuf, which costs the API server
// and us a fraction of JSON; a server that has none answers JSON.
func connect(cfg *rest.Config) ([]*kind, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	codecs := serializer.NewCodecFactory(scheme)
	clients := map[schema.GroupVersion]rest.Interface{}
	all := kinds()
	for _, k := range all {
		if clients[k.version] == nil {
			c := rest.CopyConfig(cfg)
			c.ContentType = runtime.ContentTypeProtobuf
			c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
			c.NegotiatedSerializer = codecs.WithoutConversion()
			c.GroupVersion = &k.version
			c.APIPath = "/apis"
			if k.version.Group == "" {
				c.APIPath = "/api"
			}
			// Pages are asked for one after the other, and the API server has its
			// own fairness; the library's five a second would take a minute for
			// a large cluster.
			c.QPS = -1
			if c.UserAgent == "" {
				c.UserAgent = "cairn-agent"
			}
			client, err := rest.RESTClientFor(c)
			if err != nil {
				return nil, err
			}
			clients[k.version] = client
		}
		k.client, k.codec = clients[k.version], runtime.NewParameterCodec(scheme)
	}
	return all, nil
}
