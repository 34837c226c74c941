// Command manifests builds a kustomization, checks each object as a Kubernetes API server does, and prints the
// objects as a JSON list.
//
// An object is decoded strictly, so a field that does not exist is an error. It gets its defaults, and is validated
// with the code of the API server. Pods must satisfy the level "restricted" of the Pod Security Standards. The
// command exits with 1 if there is a mistake.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	podsecurity "k8s.io/pod-security-admission/api"
	podpolicy "k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func main() {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scheme := legacyscheme.Scheme
	if err := monitoring.AddToScheme(scheme); err != nil {
		panic(err)
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	objects := []json.RawMessage{}
	wrong := false
	for _, found := range resources.Resources() {
		text := []byte(must(found.AsYAML()))
		for _, mistake := range mistakes(scheme, decoder, text) {
			fmt.Fprintf(os.Stderr, "%s: %s\n", name(found), mistake)
			wrong = true
		}
		objects = append(objects, must(found.MarshalJSON()))
	}
	if wrong {
		os.Exit(1)
	}
	fmt.Println(string(must(json.Marshal(objects))))
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func name(found *resource.Resource) string {
	return found.GetKind() + " " + found.GetName()
}

// mistakes returns what an API server would refuse in an object.
func mistakes(scheme *runtime.Scheme, decoder runtime.Decoder, text []byte) []string {
	object, kind, err := decoder.Decode(text, nil, nil)
	if err != nil {
		return []string{err.Error()}
	}
	if kind.Group == monitoring.SchemeGroupVersion.Group {
		return nil // Its resource definition has no more rules than its types, which the decoder has checked.
	}
	found := podMistakes(object)
	scheme.Default(object)
	internal := must(scheme.ConvertToVersion(object, runtime.InternalGroupVersioner))
	complete(internal)
	for _, problem := range invalid(internal) {
		found = append(found, problem.Error())
	}
	return found
}

// complete adds what an API server adds before it validates an object, besides the defaults.
func complete(object runtime.Object) {
	if service, ok := object.(*core.Service); ok && service.Spec.ClusterIP != "" {
		service.Spec.ClusterIPs = []string{service.Spec.ClusterIP}
	}
	if _, isNamespace := object.(*core.Namespace); !isNamespace && object.(metav1.Object).GetNamespace() == "" {
		object.(metav1.Object).SetNamespace("default") // The namespace of the URL.
	}
}

func invalid(object runtime.Object) field.ErrorList {
	switch typed := object.(type) {
	case *apps.Deployment:
		return appsvalidation.ValidateDeployment(typed, corevalidation.PodValidationOptions{})
	case *apps.StatefulSet:
		return appsvalidation.ValidateStatefulSet(typed, appsvalidation.StatefulSetValidationOptions{}, corevalidation.PodValidationOptions{})
	case *batch.Job:
		// Without the selector, which only a server adds, a Job has the rules of a CronJob's template.
		template := &batch.JobTemplateSpec{ObjectMeta: typed.ObjectMeta, Spec: typed.Spec}
		return batchvalidation.ValidateJobTemplateSpec(template, nil, nil, corevalidation.PodValidationOptions{})
	case *batch.CronJob:
		return batchvalidation.ValidateCronJobCreate(typed, corevalidation.PodValidationOptions{})
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(typed)
	case *core.Namespace:
		return corevalidation.ValidateNamespace(typed)
	case *core.Secret:
		return corevalidation.ValidateSecret(typed)
	case *core.Service:
		return corevalidation.ValidateServiceCreate(typed)
	case *core.ServiceAccount:
		return corevalidation.ValidateServiceAccount(typed)
	case *networking.NetworkPolicy:
		return networkingvalidation.ValidateNetworkPolicy(typed, networkingvalidation.NetworkPolicyValidationOptions{})
	case *policy.PodDisruptionBudget:
		return policyvalidation.ValidatePodDisruptionBudget(typed, policyvalidation.PodDisruptionBudgetValidationOptions{})
	}
	return field.ErrorList{field.InternalError(nil, fmt.Errorf("no rules for %T", object))}
}

// podMistakes returns what the level "restricted" of the Pod Security Standards forbids in the pods of an object.
func podMistakes(object runtime.Object) []string {
	var pod *corev1.PodTemplateSpec
	switch typed := object.(type) {
	case *appsv1.Deployment:
		pod = &typed.Spec.Template
	case *appsv1.StatefulSet:
		pod = &typed.Spec.Template
	case *batchv1.Job:
		pod = &typed.Spec.Template
	case *batchv1.CronJob:
		pod = &typed.Spec.JobTemplate.Spec.Template
	default:
		return nil
	}
	evaluator := must(podpolicy.NewEvaluator(podpolicy.DefaultChecks(), nil))
	restricted := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	var found []string
	for _, result := range evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec) {
		if !result.Allowed {
			found = append(found, result.ForbiddenReason+": "+result.ForbiddenDetail)
		}
	}
	return found
}
