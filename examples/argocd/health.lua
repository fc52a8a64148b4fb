-- Argo CD's health of a KubervisorService: resource.customizations.health.kubervisor.k8s.io_KubervisorService in argocd-cm.
local health = {status = "Progressing", message = "no controller has looked at it yet"}
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "its pods get their traffic back"
  return health
end
if obj.status == nil or obj.status.conditions == nil then
  return health
end
local found = {}
for _, condition in ipairs(obj.status.conditions) do
  found[condition.type] = condition
end
local function is(name)
  return found[name] ~= nil and found[name].status == "True"
end
if obj.status.observedGeneration ~= nil and obj.status.observedGeneration ~= obj.metadata.generation then
  health.message = "the controller has not seen the newest spec yet"
  return health
end
for _, name in ipairs({"Stalled", "Failed", "WritesRefused", "LedgerNotStored"}) do
  if is(name) then
    return {status = "Degraded", message = found[name].message}
  end
end
if obj.spec.paused == true then
  return {status = "Suspended", message = "spec.paused freezes every pod as it is"}
end
if is("Ready") then
  return {status = "Healthy", message = found["Ready"].message}
end
if found["Ready"] ~= nil then
  health.message = found["Ready"].message
end
return health
